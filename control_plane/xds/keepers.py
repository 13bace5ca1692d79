"""The listener by which billing_sink reaches providers: what batches need of them, with the credential that Envoy alone has.

It is for that one peer, whose certificate it asks for. No filter of the gateway's listener stands in it: who a batch is for, and what it may cost,
is decided before, and what is sent here is billing_sink's own.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from control_plane.catalog.model import Catalog
from control_plane.settings import Settings
from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core.clusters import Cluster, provider_cluster
from gateway_core.contract import BootstrapSecret, Header, Peer
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import KEEPER_PAUSED
from gateway_core.route_keys import keepers_path

KEEPERS: Final = "keepers"
"""Name of the listener, and of its route configuration."""

_LED_TO: Final = (Endpoint.FILE_UPLOAD, Endpoint.BATCH_CREATE)
"""Files and batches, with everything behind these paths."""


def listener(settings: Settings) -> JsonObject:
    """The Listener resource."""
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=KEEPERS,
        rds={"route_config_name": KEEPERS, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        http_filters=[
            {
                "name": "router",
                "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
            }
        ],
        normalize_path=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        request_headers_timeout="10s",
        stream_idle_timeout=f"{settings.provider_idle_timeout_s}s",
    )
    return {
        "name": KEEPERS,
        "address": {"socket_address": {"address": settings.keepers_host, "port_value": settings.keepers_port}},
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": _only_for_the_sink()},
            }
        ],
    }


def route_configuration(catalog: Catalog, settings: Settings) -> JsonObject:
    """The RouteConfiguration resource: to every provider that has batches, and to the simulator; to one that is paused it answers by itself."""
    return {
        "name": KEEPERS,
        "virtual_hosts": [{"name": KEEPERS, "domains": ["*"], "routes": list(_routes(catalog, settings))}],
    }


def _routes(catalog: Catalog, settings: Settings) -> Iterable[JsonObject]:
    for provider in sorted(catalog.providers.values(), key=lambda provider: provider.name):
        for endpoint in _LED_TO if provider.path(Endpoint.BATCH_CREATE) is not None else ():
            path = provider.path(endpoint)
            assert path is not None  # noqa: S101 - a kind that has batches has files
            asked = keepers_path(provider.name)
            if catalog.is_paused(provider.name):
                yield _paused(asked, endpoint)
            else:
                yield _route(asked, endpoint, path, provider_cluster(provider.name), settings)
    if settings.simulator_url is not None:
        base = urlsplit(settings.simulator_url).path.rstrip("/")
        for endpoint in _LED_TO:
            yield _route(keepers_path(None), endpoint, base + FACTS[endpoint].path, Cluster.SIMULATOR, settings)


def _route(asked: str, endpoint: Endpoint, path: str, cluster: str, settings: Settings) -> JsonObject:
    prefix = asked + FACTS[endpoint].path
    return {
        "name": prefix,
        "match": {"path_separated_prefix": prefix},
        "request_headers_to_add": [
            {
                # The script of the cluster has nothing to prepare.
                "header": {"key": Header.PREPARED, "value": cluster},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "route": {
            "cluster": cluster,
            "prefix_rewrite": path,
            "auto_host_rewrite": True,
            "timeout": "0s",
            # Once: what is done there may not be done twice.
            "retry_policy": {"num_retries": 0, "per_try_timeout": f"{settings.provider_timeout_s}s"},
        },
        # It says what no provider may.
        "response_headers_to_remove": [Header.OWN_REPLY],
    }


def _paused(asked: str, endpoint: Endpoint) -> JsonObject:
    """A route that leads nowhere, and says in a header that it does: a provider may answer with any status."""
    prefix = asked + FACTS[endpoint].path
    return {
        "name": prefix,
        "match": {"path_separated_prefix": prefix},
        "direct_response": {"status": KEEPER_PAUSED.status, "body": {"inline_string": KEEPER_PAUSED.body()}},
        "response_headers_to_add": [
            {
                "header": {"key": Header.OWN_REPLY, "value": KEEPER_PAUSED.code},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _only_for_the_sink() -> JsonObject:
    validation: Json = {
        "default_validation_context": {
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": Peer.BILLING_SINK}}]
        },
        "validation_context_sds_secret_config": {"name": BootstrapSecret.AUTHORITY},
    }
    return typed(
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [{"name": BootstrapSecret.IDENTITY}],
            "combined_validation_context": validation,
        },
    )
