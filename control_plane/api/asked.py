"""What an operation is asked, whoever has read it: a request over HTTP, or the console of this process in the place of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDict, MultiDict, MultiMapping

from gateway_core.ids import RequestId


@dataclass(frozen=True, slots=True)
class Asked:
    """One call.

    Attributes:
        path: with `/api/v1`, without the query: whose list a cursor belongs to.
        path_qs: the same with the query, as the caller wrote it.
        match_info: the parameters of the path.
        address: where it comes from, as far as proxies are trusted.
    """

    method: str
    path: str
    path_qs: str
    match_info: Mapping[str, str]
    address: str
    request_id: RequestId
    query: MultiMapping[str] = field(default_factory=MultiDict)
    headers: Mapping[str, str] = field(default_factory=CIMultiDict, repr=False)
