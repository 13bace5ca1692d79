"""The listener inside Envoy that an attempt passes when client and provider speak different dialects.

The route's cluster for such a hop ends here, the translator does its work, and the attempt goes on into the provider's own cluster.
To the router of the route this is an upstream like any other: whatever goes wrong here is an answer, which is retried like one. As
an upstream filter of the provider's cluster the translator's failure would be Envoy's own reply, which never is.
"""

from typing import Final

from control_plane.settings import Settings
from control_plane.xds.http_filter import http_filter
from control_plane.xds.inner_listener import ONWARD, inner_listener
from control_plane.xds.local_replies import local_reply_config
from control_plane.xds.protobuf import Json, JsonObject, typed
from control_plane.xds.replicas import grpc_retries
from gateway_core.clusters import Cluster
from gateway_core.contract import Header
from gateway_core.endpoints import Dialect
from gateway_core.errors import ErrorForm

TRANSLATION: Final = "translation"
"""Name of the listener."""

TRANSLATOR_TIMEOUT: Final = "10s"
"""For one message; the largest body takes a second."""

_TOLD_TO_THE_TRANSLATOR: Final = (
    *(":path", ":status", "content-type"),
    *(Header.TRANSLATE, Header.CHAT_FIELDS, Header.OWN_REPLY),
)

GROWTH: Final = 2
"""What a body may become of another dialect, against what it was."""

_ASKED_BY: Final = {ErrorForm.ANTHROPIC: Dialect.ANTHROPIC, ErrorForm.GOOGLE: Dialect.GEMINI}
"""Whose clients are told of errors in a form that is not OpenAI's."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    # Attempts share their headers with what the provider's cluster does to them; a route's name stays.
    routes: list[Json] = [
        *(_route(form, {"prefix": "/", "headers": [_from(client)]}) for form, client in _ASKED_BY.items()),
        _route(ErrorForm.OPENAI, {"prefix": "/"}),
    ]
    return inner_listener(
        TRANSLATION,
        routes=routes,
        filters=[_translator()],
        local_replies=local_reply_config(
            asked_in={form: f"xds.route_name == '{form}'" for form in _ASKED_BY},
            is_within=True,
            translates=True,
        ),
        body_bytes_max=settings.max_body_bytes * GROWTH,
    )


def _from(client: Dialect) -> JsonObject:
    return {"name": Header.TRANSLATE, "string_match": {"prefix": f"{client}/"}}


def _route(form: ErrorForm, match: JsonObject) -> JsonObject:
    """A route, with the name of the form in which what fails here is told."""
    return {"name": form, "match": match, "route": ONWARD}


def _translator() -> JsonObject:
    return http_filter(
        "translator",
        typed(
            "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            grpc_service={
                "envoy_grpc": {"cluster_name": Cluster.TRANSLATOR},
                "retry_policy": grpc_retries(attempt_timeout=TRANSLATOR_TIMEOUT),
            },
            # Headers have to be sent: with a body alone its translation was lost, and the path's with it.
            processing_mode={
                "request_header_mode": "SEND",
                "request_body_mode": "BUFFERED",
                "response_header_mode": "SEND",
                # The translator asks for pieces where there is a stream.
                "response_body_mode": "BUFFERED",
                "request_trailer_mode": "SKIP",
                "response_trailer_mode": "SKIP",
            },
            allow_mode_override=True,
            failure_mode_allow=False,
            status_on_error={"code": 503},
            message_timeout=TRANSLATOR_TIMEOUT,
            # It needs no credential, so it is shown none.
            forward_rules={"allowed_headers": {"patterns": [{"exact": name} for name in _TOLD_TO_THE_TRANSLATOR]}},
        ),
    )
