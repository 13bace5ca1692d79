"""The route table: by endpoint and model, in one exact-match look-up, to a chain of providers."""

from collections.abc import Sequence
from typing import Final

from control_plane.catalog.model import Catalog, Deployment
from control_plane.settings import Settings
from control_plane.xds.lua import FRONT_FILTER, upstream_filter
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from gateway_core.contract import Cluster, Header, RouteField, provider_cluster, route_key
from gateway_core.endpoints import Endpoint
from gateway_core.errors import NOT_FOUND, ApiError
from gateway_core.ids import ModelName

ROUTE_CONFIG: Final = "gateway"

_RETRIABLE_STATUS: Final = (401, 403, 408, 409, 429, 529)
"""Besides 5xx. 401 and 403 are about our own credential there; another provider's may be good."""

_HIDDEN_RESPONSE_HEADERS: Final = ("set-cookie", "openai-organization", "openai-project", "anthropic-organization-id")
"""What a provider tells about our account with it."""


def route_configuration(catalog: Catalog, settings: Settings) -> JsonObject:
    """The RouteConfiguration resource."""
    routes = {
        route_key(endpoint, model): _action(_provider_route(catalog, settings, endpoint, model, groups))
        for endpoint, model, groups in catalog.chains()
    }
    routes[route_key(Endpoint.MODELS, "")] = _action(
        {
            "name": route_key(Endpoint.MODELS, ""),
            "match": {"prefix": "/"},
            "route": {"cluster": Cluster.CONTROL_PLANE, "timeout": "10s"},
        }
    )
    return {
        "name": ROUTE_CONFIG,
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                "response_headers_to_remove": list(_HIDDEN_RESPONSE_HEADERS),
                "matcher": {
                    "matcher_tree": {
                        "input": {
                            "name": Header.ROUTE,
                            "typed_config": typed(
                                "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=Header.ROUTE
                            ),
                        },
                        "exact_match_map": {"map": routes},
                    },
                    # Admission knows the model but no route does, or the front filter was passed over: closed.
                    "on_no_match": _action(_not_found(NOT_FOUND)),
                },
            }
        ],
    }


def _action(route: JsonObject) -> JsonObject:
    return {"action": {"name": "route", "typed_config": typed("envoy.config.route.v3.Route", **route)}}


def _provider_route(
    catalog: Catalog,
    settings: Settings,
    endpoint: Endpoint,
    model: ModelName,
    groups: Sequence[Sequence[Deployment]],
) -> JsonObject:
    metadata: dict[str, Json] = {}
    for group in groups:
        for deployment in group:
            cluster = provider_cluster(deployment.provider)
            parameters = {
                RouteField.PATH: catalog.providers[deployment.provider].path(endpoint),
                RouteField.MODEL: deployment.upstream_model,
            }
            metadata[upstream_filter(cluster)] = parameters
            if groups[0] == (deployment,):
                # The first attempt is certain, so the front filter prepares it while it has the body in hand.
                metadata[FRONT_FILTER] = {RouteField.CLUSTER: cluster, **parameters}
    return {
        "name": route_key(endpoint, model),
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": metadata},
        "route": {
            "inline_cluster_specifier_plugin": {
                "extension": {
                    "name": "envoy.router.cluster_specifier_plugin.priority_group",
                    "typed_config": typed_struct(
                        "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier",
                        priority_groups=[_priority_group(number, group) for number, group in enumerate(groups)],
                    ),
                }
            },
            "auto_host_rewrite": True,
            # An answer may stream as long as the listener lets any request run; an attempt has bounds of its own.
            "timeout": "0s",
            "retry_policy": _retry_policy(len(groups), settings),
        },
    }


def _priority_group(number: int, group: Sequence[Deployment]) -> JsonObject:
    clusters: Json = [{"cluster_name": provider_cluster(d.provider), "weight": d.weight} for d in group]
    return {"name": f"group-{number}", "clusters": clusters}


def _retry_policy(groups: int, settings: Settings) -> JsonObject:
    policy: dict[str, Json] = {
        # Without it Envoy would try the first group again and again.
        "refresh_cluster_on_retry": True,
        # Up to the response headers; once a byte went out, an attempt is never repeated.
        "per_try_timeout": f"{settings.provider_timeout_s}s",
        "per_try_idle_timeout": f"{settings.provider_idle_timeout_s}s",
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if groups == 1:
        # Nowhere else to go: only what certainly did not reach the provider is worth a second try.
        return policy | {"retry_on": "connect-failure,refused-stream", "num_retries": 1}
    return policy | {
        "retry_on": "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-status-codes",
        "retriable_status_codes": list(_RETRIABLE_STATUS),
        "num_retries": groups - 1,
    }


def _not_found(error: ApiError) -> JsonObject:
    return {
        "name": "not_found",
        "match": {"prefix": "/"},
        "direct_response": {"status": error.status, "body": {"inline_string": error.body()}},
    }
