"""How many requests at once a credential may bring to an Envoy: counted by Envoy itself, before anything is read, looked up or asked.

A limit per minute says nothing of its first second, and whoever brings no good key has no limit at all. This one is the same for all, and
costs no question: whatever stands where a key may stand has a bucket in each Envoy.
"""

from typing import Final

from control_plane.xds.protobuf import Json, JsonObject, typed_struct
from gateway_core.contract import KEY_HEADERS, KEY_PARAMETER

BURSTS: Final = "bursts"
REFUSED: Final = "local_rate_limited"
"""Details of the replies."""

_CREDENTIALS_MAX: Final = 300
"""Whose buckets an Envoy remembers, of each place; beyond it the one that was not seen for longest begins anew. Values are remembered whole, up to 60 KiB, and
twice, for requests and for sessions: in all places together strangers may fill some 350 MB of its memory with them."""
_SUBPROTOCOL: Final = "sec-websocket-protocol"
"""Where browsers write the key of a session, beside other things; the session's own filters move it."""
_REFILL: Final = "1s"
_ALWAYS: Final[JsonObject] = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def bursts_filter(requests_per_second_max: int) -> JsonObject:
    """The filter.

    Args:
        requests_per_second_max: of one credential at one Envoy; a bucket that is full holds as many, and is filled again each second.
    """
    bucket: JsonObject = {
        "max_tokens": requests_per_second_max,
        "tokens_per_fill": requests_per_second_max,
        "fill_interval": _REFILL,
    }
    places: dict[str, JsonObject] = {
        **{
            name: {"request_headers": {"header_name": name, "descriptor_key": name}}
            for name in (*KEY_HEADERS, _SUBPROTOCOL)
        },
        KEY_PARAMETER: {"query_parameters": {"query_parameter_name": KEY_PARAMETER, "descriptor_key": KEY_PARAMETER}},
    }
    # Any value there, each for itself.
    descriptors: list[Json] = [{"entries": [{"key": name}], "token_bucket": bucket} for name in places]
    rate_limits: list[Json] = [{"actions": [action]} for action in places.values()]
    refusal: list[Json] = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in (
            ("x-ratelimit-limit-requests", str(requests_per_second_max)),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", _REFILL),
        )
    ]
    return {
        "name": BURSTS,
        "typed_config": typed_struct(
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix=BURSTS,
            filter_enabled=_ALWAYS,
            filter_enforced=_ALWAYS,
            descriptors=descriptors,
            rate_limits=rate_limits,
            max_dynamic_descriptors=_CREDENTIALS_MAX,
            response_headers_to_add=refusal,
        ),
    }
