"""Names of Envoy's clusters: what carries a request to a provider or a service of ours. Pure."""

from typing import Final

from gateway_core.endpoints import Dialect


class Cluster:
    """Names of Envoy clusters."""

    XDS: Final = "control_plane_xds"
    EXT_AUTHZ: Final = "ext_authz"
    CONTROL_PLANE: Final = "control_plane"
    BILLING_SINK: Final = "billing_sink"
    BILLING_SINK_KEPT: Final = "billing_sink_kept"
    """The same for what providers keep: who asks what a request costs is not in the way of it."""
    BILLING_SINK_BATCHES: Final = "billing_sink_batches"
    """The same for what clients do with batches, which may take minutes and fail with their providers."""
    TRANSLATOR: Final = "translator"
    RESPONSE_CACHE: Final = "response_cache"
    SIMULATOR: Final = "simulator"
    """Where every request with a test key goes."""
    PROVIDER_PREFIX: Final = "provider/"


def provider_cluster(provider: str) -> str:
    """Name of the cluster that carries traffic to `provider` with the platform's own credential."""
    return Cluster.PROVIDER_PREFIX + provider


def translated_cluster(provider: str, client: Dialect) -> str:
    """Name of the cluster that leads to `provider` through the translator. No provider's name holds a tilde."""
    return f"{provider_cluster(provider)}~{client}"


def capped_cluster(provider: str) -> str:
    """Name of the cluster that leads to `provider` by way of who can be told that it is full. No dialect is called so."""
    return f"{provider_cluster(provider)}~capped"


def own_key_cluster(provider: str, org_id: str) -> str:
    """Name of the cluster that asks `provider` with the key of an organisation. No provider's name holds a slash."""
    return f"{provider_cluster(provider)}/{org_id}"


def own_translated_cluster(provider: str, client: Dialect) -> str:
    """Name of the cluster that leads there through the translator, for whichever organisation. None is called `own`."""
    return f"{provider_cluster(provider)}/own~{client}"


def own_capped_cluster(provider: str) -> str:
    """Name of the cluster that leads there by way of who can be told that it is full, for whichever organisation."""
    return f"{provider_cluster(provider)}/own~capped"


def session_cluster(provider: str) -> str:
    """Name of the cluster that carries sessions to `provider`, where requests may go by HTTP/2. No dialect is called so."""
    return f"{provider_cluster(provider)}~session"


def provider_of_cluster(cluster: str) -> str | None:
    """The provider behind a cluster name, or None for a cluster of ours."""
    if not cluster.startswith(Cluster.PROVIDER_PREFIX):
        return None
    return cluster.removeprefix(Cluster.PROVIDER_PREFIX).partition("~")[0].partition("/")[0]


def is_own_key_cluster(cluster: str) -> bool:
    """Whether a provider's cluster asks with a key of the organisation whose request it is."""
    return cluster.startswith(Cluster.PROVIDER_PREFIX) and "/" in cluster.removeprefix(Cluster.PROVIDER_PREFIX)
