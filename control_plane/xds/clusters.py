"""Envoy clusters: one per provider and credential, and those of our own services."""

from collections.abc import Sequence
from ipaddress import ip_address

from control_plane.catalog.model import Provider
from control_plane.xds.http_filters import provider_filters
from control_plane.xds.protobuf import Json, JsonObject, typed
from control_plane.xds.replicas import EJECTION
from gateway_core.contract import Cluster, provider_cluster
from gateway_core.settings import HostPort

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def provider(provider: Provider) -> JsonObject:
    """The cluster of a provider."""
    endpoint = HostPort(provider.host, provider.port)
    protocol: JsonObject = (
        {"auto_config": {"http2_protocol_options": {}}}
        if provider.tls
        else {"explicit_http_config": {"http_protocol_options": {}}}
    )
    return {
        **_cluster(provider_cluster(provider.name), [endpoint]),
        "typed_extension_protocol_options": {
            _OPTIONS: typed(_OPTIONS, **protocol, http_filters=provider_filters(provider))
        },
        **(_tls(provider.host) if provider.tls else {}),
    }


def ext_authz(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that decides about every request."""
    return {
        **_replicas(Cluster.EXT_AUTHZ, endpoints),
        "typed_extension_protocol_options": {
            _OPTIONS: typed(_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
        },
    }


def control_plane(endpoints: Sequence[HostPort]) -> JsonObject:
    """The cluster that answers `/v1/models`."""
    return _replicas(Cluster.CONTROL_PLANE, endpoints)


def _replicas(name: str, endpoints: Sequence[HostPort]) -> dict[str, Json]:
    return {**_cluster(name, endpoints), "outlier_detection": EJECTION}


def _cluster(name: str, endpoints: Sequence[HostPort]) -> dict[str, Json]:
    return {
        "name": name,
        "type": "STATIC" if all(_is_address(endpoint.host) for endpoint in endpoints) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in endpoints]}],
        },
        # Not the place to limit tenants: Envoy's default of 1024 would refuse one of them for what another one does.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 100_000,
                    "max_pending_requests": 100_000,
                    "max_requests": 100_000,
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


def _tls(host: str) -> JsonObject:
    context = typed(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=host,
        common_tls_context={
            "validation_context": {
                "trusted_ca": {"filename": _CA_BUNDLE},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
            }
        },
    )
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
