"""A listener inside Envoy that an attempt passes on its way to a provider's cluster, and what all such listeners have in common.

To the router of a route it is an upstream like any other: what goes wrong here is an answer, which is retried like one.
"""

from typing import Final

from control_plane.xds.access_log import STILL_RUNNING_INTERVAL, attempts_count_log
from control_plane.xds.http_filter import http_filter
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from control_plane.xds.replicas import grpc_retries
from gateway_core.clusters import Cluster
from gateway_core.contract import AttemptCount, GrantField, Header, Metadata

_ATTEMPT_TIMEOUT: Final = "0.25s"
"""Longer nobody waits to be told that a provider is not full."""

_DOMAIN: Final = "capped"

ONWARD: Final[JsonObject] = {
    "cluster_header": Header.PROVIDER_CLUSTER,
    "auto_host_rewrite": True,
    "timeout": "0s",
    # Only here a connection that was not made can be told from an answer.
    "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
}
"""Where a route of such a listener leads: into the cluster of the provider that the attempt is at."""


def inner_listener(
    name: str, *, routes: list[Json], filters: list[Json], local_replies: JsonObject, body_bytes_max: int
) -> JsonObject:
    """The Listener resource.

    Args:
        name: its own, and that of its routes and statistics.
        routes: by what an attempt is told apart.
        filters: what an attempt passes that may be made.
        local_replies: how Envoy words what goes wrong here.
        body_bytes_max: of requests and answers.
    """
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        http_filters=[
            _asking_whether_full(),
            _nothing_left_to_prepare(),
            *filters,
            http_filter("router", typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)),
        ],
        access_log=[attempts_count_log()],
        access_log_options={"access_log_flush_interval": STILL_RUNNING_INTERVAL},
        generate_request_id=False,
        preserve_external_request_id=True,
        # Bounds are those of the route in front and of its attempts.
        stream_idle_timeout="0s",
        server_header_transformation="PASS_THROUGH",
        local_reply_config=local_replies,
    )
    return {
        "name": name,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": body_bytes_max,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _asking_whether_full() -> JsonObject:
    """Asks ext_authz about attempts at providers that may be full, and about no others. Limits are in nobody's way when it does not answer."""
    told = {
        AttemptCount.PROVIDER: Header.LIMITED,
        AttemptCount.ENVOY: Header.ENVOY,
        GrantField.ORG_ID: Header.ORG,
        GrantField.EXPECTED_TOKENS: Header.EXPECTED_TOKENS,
    }
    return http_filter(
        Metadata.ATTEMPT_NAMESPACE,
        typed(
            "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            domain=_DOMAIN,
            timeout=_ATTEMPT_TIMEOUT,
            failure_mode_deny=False,
            # With it an answer is never retried, and the next provider is to be asked.
            disable_x_envoy_ratelimited_header=True,
            rate_limit_service={
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ},
                    "retry_policy": grpc_retries(attempt_timeout=_ATTEMPT_TIMEOUT),
                },
                "transport_api_version": "V3",
            },
            rate_limits=[
                {
                    "actions": [
                        {
                            "request_headers": {
                                "header_name": header,
                                "descriptor_key": key,
                                # Without a limit of tokens none are expected; without a provider nobody is asked.
                                "skip_if_absent": header == Header.EXPECTED_TOKENS,
                            }
                        }
                        for key, header in told.items()
                    ]
                }
            ],
        ),
    )


def _nothing_left_to_prepare() -> JsonObject:
    """For the script of the provider's cluster, at every try: headers say nothing there after the first one."""
    return http_filter(
        "translated",
        typed_struct(
            "envoy.extensions.filters.http.set_metadata.v3.Config",
            metadata=[{"metadata_namespace": Metadata.NAMESPACE, "value": {Metadata.TRANSLATED: True}}],
        ),
    )
