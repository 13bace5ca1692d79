"""Pages of other origins (CORS): which may ask, and what they may read of an answer.

Envoy answers their preflights itself, in front of everything that asks for a key.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.origins import ANY_ORIGIN
from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core.contract import Header

CORS_FILTER: Final = "cors"

_RATE_LIMITS: Final = tuple(
    f"{Header.RATE_LIMIT_PREFIX}{what}-{of}"
    for what in ("limit", "remaining", "reset")
    for of in ("requests", "tokens")
)
_EXPOSED: Final = (
    *(Header.REQUEST_ID, Header.COST, Header.MAX_TOKENS, Header.CACHE, Header.DROPPED, "retry-after"),
    Header.SHOULD_RETRY,
    *_RATE_LIMITS,
)
"""What our answers have beside what every page may read."""
_ALLOWED: Final = ("*", Header.AUTHORIZATION)
"""Whatever a library sends. The star does not stand for the one header that is named."""
_METHODS: Final = ("GET", "POST", "DELETE")
_PREFLIGHT_S: Final = 7200
"""As long as browsers remember an answer at most."""


def cors_filter() -> JsonObject:
    """The filter; what it is to do stands with the virtual host."""
    return {"name": CORS_FILTER, "typed_config": typed("envoy.extensions.filters.http.cors.v3.Cors")}


def cors_policy(origins: Sequence[str]) -> JsonObject:
    """What the virtual host says to the filter. Keys travel in a header that pages set themselves; no cookie is ever asked for."""
    allowed: Json = (
        [{"safe_regex": {"regex": ".*"}}] if ANY_ORIGIN in origins else [{"exact": origin} for origin in origins]
    )
    return typed(
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        allow_origin_string_match=allowed,
        allow_methods=", ".join(_METHODS),
        allow_headers=", ".join(_ALLOWED),
        expose_headers=", ".join(_EXPOSED),
        max_age=str(_PREFLIGHT_S),
    )
