"""Which requests are the same question, and which of them will be answered alike each time. Pure.

Two requests are the same question if one organisation asks them in one mode on one endpoint of what stands for the same, their headers ask
for the same of a vendor (versions, betas), and their bodies say the same: JSON with its keys in order, without the model's name, which the rest tells, and without what only says who asks. `stream` is in it,
since an answer is told again as it came.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway_core.contract import CacheWish
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId
from response_cache.asked import Asked

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

_VERSION: Final = 2
"""Of what a question is. Answers that were cached under another one are not found any more."""

_SAYS_WHO: Final = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
_ECHOING: Final = frozenset({Endpoint.RESPONSES})
"""Their answers say these fields again, which are one client's and not another's."""

_READING: Final = frozenset({Endpoint.EMBEDDINGS, Endpoint.MODERATIONS, Endpoint.RERANK})
"""Nothing there hangs on chance."""
_GOOGLES: Final = frozenset({Endpoint.GENERATE, Endpoint.STREAM_GENERATE})
_COUNTS: Final = ("n", "best_of", "candidateCount")
"""Fields that ask for several answers, which are to differ."""


class AmbiguousBodyError(ValueError):
    """A body that is not one object, or that two readers could read in two ways."""


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is looked for by.

    Attributes:
        text: the same for the same question and for no other.
        ttl_s: how long an answer is good; None where nobody says.
    """

    org_id: OrgId
    endpoint: Endpoint
    text: bytes
    ttl_s: int | None


def question_of(asked: Asked, body: bytes) -> Question | None:
    """The question that a request is; None if its answer is nothing to be cached or to be told again."""
    if asked.is_cut_down:
        return None
    try:
        said = _parse(body)
    except (AmbiguousBodyError, RecursionError):
        return None
    if asked.wish is CacheWish.ROUTE and (asked.looks_elsewhere or not _is_answered_alike(asked.endpoint, said)):
        return None
    try:
        whose = (_VERSION, asked.mode, asked.org_id, asked.endpoint, asked.served_by)
        text = _canonical([*whose, asked.headers, _matter(asked, said)])
    except ValueError:
        # A number beyond all bounds.
        return None
    return Question(asked.org_id, asked.endpoint, text, asked.ttl_s)


def _parse(body: bytes) -> Mapping[str, Json]:
    try:
        said = json.loads(body, object_pairs_hook=_each_once, parse_constant=_refuse)
    except ValueError as error:
        raise AmbiguousBodyError("not JSON") from error
    if not isinstance(said, dict):
        raise AmbiguousBodyError("not an object")
    return said


def _each_once(pairs: Sequence[tuple[str, Json]]) -> Mapping[str, Json]:
    """Of a name that comes twice one reader takes the first and another the last: one answer must not be told for the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise AmbiguousBodyError("a name twice")
    return found


def _refuse(_: str) -> Json:
    raise AmbiguousBodyError("a number that is none")


def _is_answered_alike(endpoint: Endpoint, said: Mapping[str, Json]) -> bool:
    if endpoint in _READING:
        return True
    found = said.get("generationConfig") if endpoint in _GOOGLES else said
    if not isinstance(found, Mapping):
        return False
    temperature = found.get("temperature")
    is_cold = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return is_cold and all(found.get(name, 1) == 1 or found[name] is None for name in _COUNTS)


def _matter(asked: Asked, said: Mapping[str, Json]) -> Mapping[str, Json]:
    left_out = {"model", *(() if asked.endpoint in _ECHOING else _SAYS_WHO)}
    if not said.get("stream"):
        left_out.add("stream")
    return {name: value for name, value in said.items() if name not in left_out}


def _canonical(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
