"""What Envoy tells of a request: whose it is, what it was read to be, and who wants its answer to be one that was cached. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

from gateway_core.contract import ANSWER_HEADERS, CacheWish, GrantField, RequestField
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId
from gateway_core.mode import Mode
from gateway_core.usage import Meter

Fields: TypeAlias = Mapping[str, str | float | bool]
"""The texts, numbers and truth values of one struct of Envoy's metadata."""


class UnreadableRequestError(ValueError):
    """Metadata that Envoy does not write. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was admitted.

    Attributes:
        served_by: what its route stands for, or for a test key the model: answers of one are no answers of another.
        ttl_s: how long its answer may be cached; None where the route does not say.
        is_cut_down: whether its answer will be shorter than it asked for.
        looks_elsewhere: whether what the answer is made of is not all in the body.
        headers: those by which the provider is asked for another answer, name and value, by name.
    """

    org_id: OrgId
    mode: Mode
    endpoint: Endpoint
    served_by: str
    wish: CacheWish
    ttl_s: int | None
    is_cut_down: bool
    looks_elsewhere: bool
    headers: tuple[tuple[str, str], ...] = ()


def read_asked(request: Fields, grant: Fields, headers: Iterable[tuple[str, str]]) -> Asked:
    """Read the two structs of `gateway_core.contract`, and the headers that came with them.

    Raises:
        UnreadableRequestError: one of them is not as it should be.
    """
    org_id, served_by = (
        grant.get(GrantField.ORG_ID),
        request.get(RequestField.OFFERING, request.get(RequestField.MODEL)),
    )
    ttl_s = request.get(RequestField.CACHE_TTL_S)
    if not (isinstance(org_id, str) and org_id and isinstance(served_by, str) and served_by):
        raise UnreadableRequestError("a request of nobody, or for nothing")
    if isinstance(ttl_s, str):
        raise UnreadableRequestError("a time that is no number")
    try:
        return Asked(
            OrgId(org_id),
            Mode(str(request.get(RequestField.MODE))),
            Endpoint(str(request.get(RequestField.ENDPOINT))),
            served_by,
            CacheWish(str(request.get(RequestField.CACHE))),
            None if ttl_s is None else int(ttl_s),
            is_cut_down=GrantField.MAX_TOKENS in grant,
            looks_elsewhere=bool(request.get(RequestField.REFERENCES))
            or Meter.WEB_SEARCH in str(request.get(RequestField.METERS, "")),
            # In their order where one comes twice.
            headers=tuple(sorted((each for each in headers if each[0].startswith(ANSWER_HEADERS)), key=itemgetter(0))),
        )
    except ValueError as error:
        raise UnreadableRequestError("a mode, an endpoint or a wish that is not known") from error
