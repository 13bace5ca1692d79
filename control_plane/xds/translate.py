"""The catalogue and the settings, as Envoy's resources. No I/O; the bytes of the latest are kept, so that none is built twice."""

import json
from collections.abc import Iterable

from control_plane.catalog.model import Catalog
from control_plane.settings import Settings
from control_plane.xds import capped, clusters, keepers, listeners, routes, secrets, translation
from control_plane.xds.own_key_clusters import OwnKeyClusters
from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, JsonObject, encode
from control_plane.xds.route_table import RouteTable
from control_plane.xds.snapshot import TYPES, Snapshot, TypedResources
from gateway_core.endpoints import Endpoint


def resources(catalog: Catalog, settings: Settings) -> Iterable[tuple[str, JsonObject]]:
    """Every resource in its JSON form, with its type."""
    yield from _all_but_routes(catalog, settings)
    for key in catalog.own_keys:
        yield (
            CLUSTER_TYPE,
            clusters.provider(key.provider, key.org_id, private_allowed=settings.private_providers_allowed),
        )
    yield (
        ROUTE_TYPE,
        routes.route_configuration(
            routes.catalog_routes(catalog, translated=settings.translates), settings, catalog.own_keys_as_of
        ),
    )


def _all_but_routes(catalog: Catalog, settings: Settings) -> Iterable[tuple[str, JsonObject]]:
    """And but for the clusters of own keys. The routes are those of clients."""
    providers = sorted(catalog.providers.values(), key=lambda provider: provider.name)
    sold_as_sessions = {
        deployment.provider
        for deployment in catalog.deployments
        if Endpoint.REALTIME in catalog.models[deployment.model].endpoints
    }
    for provider in providers:
        yield CLUSTER_TYPE, clusters.provider(provider, private_allowed=settings.private_providers_allowed)
        if provider.is_capped:
            yield from ((CLUSTER_TYPE, cluster) for cluster in clusters.capped(provider))
        if routes.has_own_cluster_for_sessions(provider) and provider.name in sold_as_sessions:
            yield CLUSTER_TYPE, clusters.session(provider, private_allowed=settings.private_providers_allowed)
        if settings.translates:
            yield from ((CLUSTER_TYPE, cluster) for cluster in clusters.translated(provider))
    yield CLUSTER_TYPE, clusters.ext_authz(settings.ext_authz_endpoints)
    yield CLUSTER_TYPE, clusters.control_plane(settings.control_plane_endpoints)
    yield from ((CLUSTER_TYPE, cluster) for cluster in clusters.billing_sink(settings.billing_sink_endpoints))
    if settings.translates:
        yield CLUSTER_TYPE, clusters.translator(settings.translator_endpoints)
    if settings.response_cache_endpoints:
        yield CLUSTER_TYPE, clusters.response_cache(settings.response_cache_endpoints)
    if settings.simulator_url is not None:
        yield CLUSTER_TYPE, clusters.simulator(settings.simulator_url)
    for provider in providers:
        if (secret := secrets.secret(provider)) is not None:
            yield SECRET_TYPE, secret
    for key in catalog.own_keys:
        if (secret := secrets.secret(key.provider, key.org_id)) is not None:
            yield SECRET_TYPE, secret
    yield LISTENER_TYPE, listeners.listener(settings)
    # Always: the first provider that has a bound is not to wait for it.
    yield LISTENER_TYPE, capped.listener(settings)
    yield LISTENER_TYPE, keepers.listener(settings)
    yield ROUTE_TYPE, keepers.route_configuration(catalog, settings)
    if settings.translates:
        yield LISTENER_TYPE, translation.listener(settings)


class Translator:
    """Turns a catalogue into a snapshot, and remembers the bytes of what it has built.

    Encoding costs milliseconds per resource; a catalogue edit changes few. Only the latest snapshot's bytes are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._routes = RouteTable(settings)
        self._own_key_clusters = OwnKeyClusters(private_allowed=settings.private_providers_allowed)
        self._encoded: dict[tuple[str, str], bytes] = {}

    def translate(self, catalog: Catalog) -> Snapshot:
        """The snapshot of a catalogue."""
        encoded: dict[tuple[str, str], bytes] = {}
        by_type: dict[str, dict[str, bytes]] = {type_url: {} for type_url in TYPES}
        for type_url, resource in _all_but_routes(catalog, self._settings):
            key = (type_url, json.dumps(resource, sort_keys=True))
            encoded[key] = self._encoded.get(key) or encode(type_url, resource)
            by_type[type_url][str(resource["name"])] = encoded[key]
        self._encoded = encoded
        by_type[CLUSTER_TYPE] |= self._own_key_clusters.encode(catalog)
        by_type[ROUTE_TYPE][routes.ROUTE_CONFIG] = self._routes.encode(catalog)
        return Snapshot(catalog.revision, {name: TypedResources.of(content) for name, content in by_type.items()})
