"""The listener of clients: the connection manager that every request of theirs passes. Others are inside Envoy, or billing_sink's own."""

from collections.abc import Sequence
from typing import Final

from control_plane.settings import Settings
from control_plane.xds.access_log import STILL_RUNNING_INTERVAL, attempts_log, leased_limits_log, limits_log, spool_log
from control_plane.xds.listener_filters import EARLY_MUTATIONS, listener_filters, session_filters
from control_plane.xds.local_replies import local_reply_config
from control_plane.xds.protobuf import Json, JsonObject, typed
from control_plane.xds.routes import ROUTE_CONFIG
from gateway_core.contract import REQUEST_S_MAX
from gateway_core.networks import Network

LISTENER: Final = "gateway"
WEBSOCKET: Final = "websocket"

REQUEST_BODY_S_MAX: Final = 300
"""How long a client may take to send its body."""

BUFFER_HEADROOM_BYTES: Final = 65536
"""What the front filter may add to a body: a longer model name, a request for usage."""

_AT_FACE_VALUE: Final[tuple[Json, ...]] = ({"remove": "x-forwarded-proto"},)
"""What Envoy believes of anybody once it believes a proxy's word for the address. It says it itself otherwise."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        rds={"route_config_name": ROUTE_CONFIG, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        http_filters=listener_filters(
            max_body_bytes=settings.max_body_bytes,
            burst_requests_per_second_max=settings.burst_requests_per_second_max,
            behind_proxies=bool(settings.trusted_proxies),
            answers_browsers=bool(settings.cors_origins),
            has_cache=bool(settings.response_cache_endpoints),
            attempts_log=attempts_log(settings.spool_dir),
        ),
        # On the one path that is a WebSocket; the front filter refuses it elsewhere.
        upgrade_configs=[
            {
                "upgrade_type": WEBSOCKET,
                "filters": session_filters(
                    burst_requests_per_second_max=settings.burst_requests_per_second_max,
                    behind_proxies=bool(settings.trusted_proxies),
                    attempts_log=attempts_log(settings.spool_dir),
                ),
            }
        ],
        access_log=[
            spool_log(settings.spool_dir, answers_browsers=bool(settings.cors_origins)),
            limits_log(),
            leased_limits_log(),
        ],
        # For the two logs of limits: what ext_authz does not hear of is given up, and its place is another's.
        access_log_options={"access_log_flush_interval": STILL_RUNNING_INTERVAL},
        early_header_mutation_extensions=[
            {
                "name": "hygiene",
                "typed_config": typed(
                    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    mutations=[*EARLY_MUTATIONS, *(_AT_FACE_VALUE if settings.trusted_proxies else ())],
                ),
            }
        ],
        generate_request_id=True,
        always_set_request_id_in_response=True,
        **_origin(settings.trusted_proxies),
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        common_http_protocol_options={
            "idle_timeout": "3600s",
            "max_stream_duration": f"{REQUEST_S_MAX}s",
            "headers_with_underscores_action": "DROP_HEADER",
            "max_headers_count": 100,
        },
        # Slow headers, slow bodies and clients that stop reading end; a provider's silence ends by its route.
        request_headers_timeout="10s",
        request_timeout=f"{REQUEST_BODY_S_MAX}s",
        stream_idle_timeout=f"{REQUEST_S_MAX}s",
        server_header_transformation="OVERWRITE",
        server_name="tollgate",
        local_reply_config=local_reply_config(),
    )
    return {
        "name": LISTENER,
        "address": {
            "socket_address": {"address": settings.gateway_host, "port_value": settings.gateway_port},
        },
        "per_connection_buffer_limit_bytes": settings.max_body_bytes + BUFFER_HEADROOM_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _origin(trusted: Sequence[Network]) -> JsonObject:
    """Where a request comes from: as the API has it (`control_plane/api/client_address.py`)."""
    if not trusted:
        return {"use_remote_address": True}
    cidrs: list[Json] = [
        {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen} for network in trusted
    ]
    forwarded_for = typed(
        "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
        xff_trusted_cidrs={"cidrs": cidrs},
    )
    return {
        "use_remote_address": False,
        "original_ip_detection_extensions": [
            {"name": "envoy.http.original_ip_detection.xff", "typed_config": forwarded_for}
        ],
    }
