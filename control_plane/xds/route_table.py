"""The route configuration as bytes, put together from routes that are encoded once each.

An edit changes few routes of thousands. So the configuration is encoded with an empty map, and the bytes of the routes are put
into it through the trimmed messages of `proto/route_table.proto`.
"""

from control_plane.catalog.model import Catalog
from control_plane.settings import Settings
from control_plane.xds.protobuf import ROUTE_TYPE, encode
from control_plane.xds.route_encoding import encode_on_match
from control_plane.xds.routes import KeptRoute, ProviderRoute, action, catalog_routes, route_configuration
from wire.route_table_pb2 import RouteConfiguration


class RouteTable:
    """Remembers the bytes of the routes of the latest configuration and the one before, and of what no catalogue changes.

    Of the one before, because a provider that has left routes comes back to them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._frames: dict[int, bytes] = {}
        self._encoded: dict[ProviderRoute | KeptRoute, bytes] = {}
        self._before: dict[ProviderRoute | KeptRoute, bytes] = {}

    def encode(self, catalog: Catalog) -> bytes:
        """The RouteConfiguration resource of a catalogue; the same routes give the same bytes."""
        configuration = RouteConfiguration.FromString(self._frame(catalog.own_keys_as_of))
        (host,) = configuration.virtual_hosts
        table = host.matcher.matcher_tree.exact_match_map.map
        encoded = {}
        for route in catalog_routes(catalog, translated=self._settings.translates):
            content = (
                self._encoded.get(route) or self._before.get(route) or encode_on_match(action(route, self._settings))
            )
            table[route.key] = encoded[route] = content
        if encoded.keys() != self._encoded.keys():
            self._before, self._encoded = self._encoded, encoded
        return configuration.SerializeToString(deterministic=True)

    def _frame(self, own_keys_as_of: int) -> bytes:
        """All but the routes. The latest is kept."""
        if own_keys_as_of not in self._frames:
            self._frames = {own_keys_as_of: encode(ROUTE_TYPE, route_configuration((), self._settings, own_keys_as_of))}
        return self._frames[own_keys_as_of]
