"""The listener inside Envoy that an attempt passes whose provider may be full: it may have only so many requests at once, or in a minute.

To the router of a route a full cluster is the end: it never retries that. Behind this listener another router finds the cluster full, or
ext_authz says so, and to the one in front that is an answer like any other, which is retried at the next group. Providers without such
a bound are reached directly.
"""

from typing import Final

from control_plane.settings import Settings
from control_plane.xds.access_log import STILL_RUNNING_INTERVAL, attempts_count_log
from control_plane.xds.http_filters import CAPPED, capped_filters
from control_plane.xds.local_replies import local_reply_config
from control_plane.xds.protobuf import JsonObject, typed
from gateway_core.contract import Header
from gateway_core.errors import ErrorForm

_FORMS: Final = {
    ErrorForm.ANTHROPIC: "request.url_path.endsWith('/messages') || request.url_path.endsWith('/messages/count_tokens')",
    ErrorForm.GOOGLE: "request.url_path.endsWith(':generateContent') || request.url_path.endsWith(':streamGenerateContent')",
}
"""In which form an error is told, by the path at the provider, which speaks the client's dialect here."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=CAPPED,
        route_config={
            "name": CAPPED,
            "virtual_hosts": [
                {
                    "name": CAPPED,
                    "domains": ["*"],
                    "routes": [
                        {
                            "name": CAPPED,
                            "match": {"prefix": "/"},
                            "route": {
                                "cluster_header": Header.PROVIDER_CLUSTER,
                                "auto_host_rewrite": True,
                                "timeout": "0s",
                                # Only here a connection that was not made can be told from an answer.
                                "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
                            },
                        }
                    ],
                }
            ],
        },
        http_filters=capped_filters(),
        access_log=[attempts_count_log()],
        access_log_options={"access_log_flush_interval": STILL_RUNNING_INTERVAL},
        generate_request_id=False,
        preserve_external_request_id=True,
        # Bounds are those of the route in front and of its attempts.
        stream_idle_timeout="0s",
        server_header_transformation="PASS_THROUGH",
        local_reply_config=local_reply_config(asked_in=_FORMS, is_within=True),
    )
    return {
        "name": CAPPED,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
