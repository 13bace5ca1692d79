"""The listener inside Envoy that an attempt passes when client and provider speak different dialects.

The route's cluster for such a hop ends here, the translator does its work, and the attempt goes on into the provider's own cluster.
To the router of the route this is an upstream like any other: whatever goes wrong here is an answer, which is retried like one. As
an upstream filter of the provider's cluster the translator's failure would be Envoy's own reply, which never is.
"""

from typing import Final

from control_plane.settings import Settings
from control_plane.xds.access_log import STILL_RUNNING_INTERVAL, attempts_count_log
from control_plane.xds.http_filters import TRANSLATION, translation_filters
from control_plane.xds.local_replies import local_reply_config
from control_plane.xds.protobuf import JsonObject, typed
from gateway_core.contract import Header
from gateway_core.endpoints import Dialect
from gateway_core.errors import ErrorForm

GROWTH: Final = 2
"""What a body may become of another dialect, against what it was."""

_ASKED_BY: Final = {ErrorForm.ANTHROPIC: Dialect.ANTHROPIC, ErrorForm.GOOGLE: Dialect.GEMINI}
"""Whose clients are told of errors in a form that is not OpenAI's."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=TRANSLATION,
        route_config=_routes(),
        http_filters=translation_filters(),
        access_log=[attempts_count_log()],
        access_log_options={"access_log_flush_interval": STILL_RUNNING_INTERVAL},
        generate_request_id=False,
        preserve_external_request_id=True,
        # Bounds are those of the route in front and of its attempts.
        stream_idle_timeout="0s",
        server_header_transformation="PASS_THROUGH",
        local_reply_config=local_reply_config(
            asked_in={form: f"xds.route_name == '{form}'" for form in _ASKED_BY},
            is_within=True,
            translates=True,
        ),
    )
    return {
        "name": TRANSLATION,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": settings.max_body_bytes * GROWTH,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes() -> JsonObject:
    # Attempts share their headers with what the provider's cluster does to them; a route's name stays.
    return {
        "name": TRANSLATION,
        "virtual_hosts": [
            {
                "name": TRANSLATION,
                "domains": ["*"],
                "routes": [
                    *(_route(form, {"prefix": "/", "headers": [_from(client)]}) for form, client in _ASKED_BY.items()),
                    _route(ErrorForm.OPENAI, {"prefix": "/"}),
                ],
            }
        ],
    }


def _from(client: Dialect) -> JsonObject:
    return {"name": Header.TRANSLATE, "string_match": {"prefix": f"{client}/"}}


def _route(form: ErrorForm, match: JsonObject) -> JsonObject:
    """A route, with the name of the form in which what fails here is told."""
    return {
        "name": form,
        "match": match,
        "route": {
            "cluster_header": Header.PROVIDER_CLUSTER,
            "auto_host_rewrite": True,
            "timeout": "0s",
            # Only here a connection that was not made can be told from an answer.
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
        },
    }
