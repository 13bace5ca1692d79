"""Envoy clusters: one per provider and credential, and those of our own services."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from control_plane.catalog.model import Provider
from control_plane.xds.capped import CAPPED
from control_plane.xds.protobuf import Json, JsonObject, typed
from control_plane.xds.provider_filters import (
    capping_filters,
    provider_filters,
    simulator_filters,
    translated_filters,
)
from control_plane.xds.replicas import EJECTION
from control_plane.xds.translation import TRANSLATION
from gateway_core.clusters import (
    Cluster,
    capped_cluster,
    own_capped_cluster,
    own_key_cluster,
    own_translated_cluster,
    provider_cluster,
    session_cluster,
    translated_cluster,
)
from gateway_core.contract import BootstrapSecret, Peer
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId
from gateway_core.settings import HostPort

COST_TIMEOUT_MS: Final = 250
"""As long as an answer may wait to be told what it costs; `envoy/lua/cost.lua` has it too."""
COSTS_AT_ONCE_MAX: Final = 256
KEPT_TIMEOUT_MS: Final = 1000
"""In which billing_sink has to have written down what a provider keeps; `envoy/lua/kept.lua` has it too."""
KEPT_AT_ONCE_MAX: Final = 1024
BATCHES_TIMEOUT_MS: Final = 1000
"""To be connected in."""
BATCHES_AT_ONCE_MAX: Final = 256
CONTROL_PLANE_CONNECTIONS_MAX: Final = 32
"""Of one Envoy to all control planes. Each takes no more than some from one address, of all that is there."""

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def provider(provider: Provider, org_id: OrgId | None = None, *, private_allowed: bool) -> JsonObject:
    """The cluster of a provider, or the one with an organisation's own key.

    Whether it may lead into private networks is the installation's to say.
    """
    name = provider_cluster(provider.name)
    filters = provider_filters(name, provider, org_id, private_allowed=private_allowed)
    return _provider(name if org_id is None else own_key_cluster(provider.name, org_id), provider, filters, http2=True)


def session(provider: Provider, *, private_allowed: bool) -> JsonObject:
    """The cluster of a provider's sessions: an upgrade to a WebSocket is HTTP/1.1's."""
    name = session_cluster(provider.name)
    return _provider(name, provider, provider_filters(name, provider, private_allowed=private_allowed), http2=False)


def _provider(name: str, provider: Provider, filters: Sequence[Json], *, http2: bool) -> JsonObject:
    return _upstream(
        name,
        HostPort(provider.host, provider.port),
        tls=provider.tls,
        http2=http2,
        filters=filters,
        connect_timeout_ms=provider.connect_timeout_ms,
        connections_max=provider.connections_max,
        requests_max=provider.requests_max,
    )


def translated(provider: Provider) -> Iterable[JsonObject]:
    """The clusters that lead to a provider through the translator: one for each dialect of clients that it does not speak.

    They end inside Envoy, at the listener of `translation`, and from there on an attempt is the provider's own cluster's.
    """
    by_client = {found.client: found for found in map(provider.translation, Endpoint) if found is not None}
    for client, found in by_client.items():
        name = translated_cluster(provider.name, client)
        yield _to_listener(name, TRANSLATION, translated_filters(provider, found))
        if provider.own_keys_allowed:
            own = own_translated_cluster(provider.name, client)
            yield _to_listener(own, TRANSLATION, translated_filters(provider, found, own_key=True))


def capped(provider: Provider) -> Iterable[JsonObject]:
    """The clusters that lead to a provider by way of the listener of `capped`. They have no bounds, or would be full themselves."""
    yield _to_listener(capped_cluster(provider.name), CAPPED, capping_filters(provider))
    if provider.own_keys_allowed:
        yield _to_listener(own_capped_cluster(provider.name), CAPPED, capping_filters(provider, own_key=True))


def _to_listener(name: str, listener: str, filters: Sequence[Json]) -> JsonObject:
    """A cluster that ends inside Envoy."""
    address: Json = {"envoy_internal_address": {"server_listener_name": listener}}
    return {
        **_cluster(name, ()),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            _OPTIONS: typed(_OPTIONS, explicit_http_config={"http_protocol_options": {}}, http_filters=filters)
        },
    }


def translator(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that translates what the client and the provider of an attempt do not both speak."""
    return _grpc_replicas(Cluster.TRANSLATOR, endpoints, Peer.TRANSLATOR)


def response_cache(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that keeps answers."""
    return _grpc_replicas(Cluster.RESPONSE_CACHE, endpoints, Peer.RESPONSE_CACHE)


def simulator(url: str) -> JsonObject:
    """The cluster that answers every request with a test key. It has no secret, so none can get there."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    address = HostPort(parts.hostname or "", parts.port or (443 if tls else 80))
    return _upstream(Cluster.SIMULATOR, address, tls=tls, filters=simulator_filters())


def ext_authz(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that decides about every request."""
    return _grpc_replicas(Cluster.EXT_AUTHZ, endpoints, Peer.EXT_AUTHZ)


def _grpc_replicas(name: str, endpoints: Sequence[HostPort], peer: Peer) -> JsonObject:
    return {
        **_cluster(name, endpoints),
        "outlier_detection": EJECTION,
        "typed_extension_protocol_options": {
            _OPTIONS: typed(
                _OPTIONS,
                # One that keeps silent is left, also by what is never answered: the word that requests are over.
                explicit_http_config={
                    "http2_protocol_options": {"connection_keepalive": {"interval": "5s", "timeout": "3s"}}
                },
            )
        },
        **_mutual_tls(peer),
    }


def billing_sink(endpoints: Sequence[HostPort]) -> Iterable[JsonObject]:
    """The clusters that tell what a request costs, that write down what is kept, and that answer about batches.

    Few wait for the first at once, since nobody may wait for it long. Without the second an answer is not given. What fails with a provider
    of batches says nothing of the sink to the other two.
    """
    for name, timeout_ms, requests_max in (
        (Cluster.BILLING_SINK, COST_TIMEOUT_MS, COSTS_AT_ONCE_MAX),
        (Cluster.BILLING_SINK_KEPT, KEPT_TIMEOUT_MS, KEPT_AT_ONCE_MAX),
        (Cluster.BILLING_SINK_BATCHES, BATCHES_TIMEOUT_MS, BATCHES_AT_ONCE_MAX),
    ):
        yield {
            **_cluster(name, endpoints, connect_timeout_ms=timeout_ms, requests_max=requests_max),
            "outlier_detection": EJECTION,
            **_mutual_tls(Peer.BILLING_SINK),
        }


def control_plane(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that answers `/v1/models`. Requests beyond its connections wait for one of them."""
    return {
        **_cluster(Cluster.CONTROL_PLANE, endpoints, connections_max=CONTROL_PLANE_CONNECTIONS_MAX),
        "outlier_detection": EJECTION,
    }


def _upstream(
    name: str,
    address: HostPort,
    *,
    tls: bool,
    filters: Sequence[Json],
    http2: bool = True,
    connect_timeout_ms: int | None = None,
    connections_max: int | None = None,
    requests_max: int | None = None,
) -> JsonObject:
    protocol: JsonObject = (
        {"auto_config": {"http2_protocol_options": {}}}
        if tls and http2
        else {"explicit_http_config": {"http_protocol_options": {}}}
    )
    return {
        **_cluster(
            name,
            [address],
            connect_timeout_ms=connect_timeout_ms,
            connections_max=connections_max,
            requests_max=requests_max,
        ),
        "typed_extension_protocol_options": {_OPTIONS: typed(_OPTIONS, **protocol, http_filters=filters)},
        **(_tls(address.host) if tls else {}),
    }


def _cluster(
    name: str,
    endpoints: Sequence[HostPort],
    *,
    connect_timeout_ms: int | None = None,
    connections_max: int | None = None,
    requests_max: int | None = None,
) -> dict[str, Json]:
    return {
        "name": name,
        "type": "STATIC" if all(_is_address(endpoint.host) for endpoint in endpoints) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s" if connect_timeout_ms is None else f"{connect_timeout_ms / 1000:.3f}s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in endpoints]}],
        },
        # Envoy's default of 1024 would refuse one tenant for what another one does; an operator who knows better says so.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": connections_max or 100_000,
                    "max_pending_requests": 100_000,
                    "max_requests": requests_max or 100_000,
                    "max_retries": 1000,
                }
            ]
        },
    }


def _endpoint(endpoint: HostPort) -> JsonObject:
    address: Json = {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}
    return {"endpoint": {"address": address, "hostname": endpoint.host}}


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _mutual_tls(peer: Peer) -> JsonObject:
    """As bootstrap.yaml dials the control plane. A secret without a source is the bootstrap's: its files are Envoy's alone."""
    return _transport(
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [{"name": BootstrapSecret.IDENTITY}],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": peer}}]
                },
                "validation_context_sds_secret_config": {"name": BootstrapSecret.AUTHORITY},
            },
        },
    )


def _tls(host: str) -> JsonObject:
    return _transport(
        sni=host,
        common_tls_context={
            "validation_context": {
                "trusted_ca": {"filename": _CA_BUNDLE},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
            }
        },
    )


def _transport(**fields: Json) -> JsonObject:
    context = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", **fields)
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
