"""The listener inside Envoy that an attempt passes whose provider may be full: it may have only so many requests at once, or in a minute.

To the router of a route a full cluster is the end: it never retries that. Behind this listener another router finds the cluster full, or
ext_authz says so, and to the one in front that is an answer like any other, which is retried at the next group. Providers without such
a bound are reached directly.
"""

from typing import Final

from control_plane.settings import Settings
from control_plane.xds.inner_listener import ONWARD, inner_listener
from control_plane.xds.local_replies import local_reply_config
from control_plane.xds.protobuf import JsonObject
from gateway_core.errors import ErrorForm

CAPPED: Final = "capped"
"""Name of the listener."""

_FORMS: Final = {
    ErrorForm.ANTHROPIC: "request.url_path.endsWith('/messages') || request.url_path.endsWith('/messages/count_tokens')",
    ErrorForm.GOOGLE: "request.url_path.endsWith(':generateContent') || request.url_path.endsWith(':streamGenerateContent')",
}
"""In which form an error is told, by the path at the provider, which speaks the client's dialect here."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    return inner_listener(
        CAPPED,
        routes=[{"name": CAPPED, "match": {"prefix": "/"}, "route": ONWARD}],
        filters=[],
        local_replies=local_reply_config(asked_in=_FORMS, is_within=True),
        body_bytes_max=settings.max_body_bytes,
    )
