"""Envoy's resources from their JSON form, as Envoy's documentation writes them, to bytes.

The builders beside this module return plain JSON values; a field name Envoy's API does not have is an error here, and
golden files compare word for word with what Envoy documents. envoy-data-plane carries the API of an Envoy older than
ours, so what it lacks travels as `xds.type.v3.TypedStruct`, which Envoy unpacks by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import betterproto2

# Importing a package registers its messages, so that "@type" finds them.
import envoy_data_plane.envoy.extensions.access_loggers.file.v3
import envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3
import envoy_data_plane.envoy.extensions.access_loggers.grpc.v3
import envoy_data_plane.envoy.extensions.common.matching.v3
import envoy_data_plane.envoy.extensions.filters.common.matcher.action.v3
import envoy_data_plane.envoy.extensions.filters.http.aws_request_signing.v3
import envoy_data_plane.envoy.extensions.filters.http.composite.v3
import envoy_data_plane.envoy.extensions.filters.http.cors.v3
import envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3
import envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3
import envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3
import envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3
import envoy_data_plane.envoy.extensions.filters.http.health_check.v3
import envoy_data_plane.envoy.extensions.filters.http.ratelimit.v3
import envoy_data_plane.envoy.extensions.filters.http.rbac.v3
import envoy_data_plane.envoy.extensions.filters.http.router.v3
import envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3
import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3
import envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3
import envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3
import envoy_data_plane.envoy.extensions.http.original_ip_detection.xff.v3
import envoy_data_plane.envoy.extensions.matching.common_inputs.network.v3
import envoy_data_plane.envoy.extensions.matching.input_matchers.metadata.v3
import envoy_data_plane.envoy.extensions.rbac.matchers.upstream_ip_port.v3
import envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3
import envoy_data_plane.envoy.extensions.transport_sockets.tls.v3
import envoy_data_plane.envoy.extensions.upstreams.http.v3
import envoy_data_plane.envoy.type.matcher.v3  # noqa: F401 - imported to register, like those above
from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import Secret
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.message_pool import default_message_pool

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | bool | None
JsonObject = Mapping[str, Json]

TYPE_PREFIX: Final = "type.googleapis.com/"
CLUSTER_TYPE: Final = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
LISTENER_TYPE: Final = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET_TYPE: Final = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"

_MESSAGE_BY_TYPE: Final[Mapping[str, type[Message]]] = {
    CLUSTER_TYPE: Cluster,
    LISTENER_TYPE: Listener,
    ROUTE_TYPE: RouteConfiguration,
    SECRET_TYPE: Secret,
}


@dataclass(eq=False, repr=False)
class TypedStruct(Message):
    """`xds.type.v3.TypedStruct`: a message named by its type and given as JSON."""

    type_url: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: "Struct | None" = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)  # noqa: RUF009 - likewise


default_message_pool.register_message("xds.type.v3", "TypedStruct", TypedStruct)


def typed(name: str, /, **fields: Json) -> JsonObject:
    """A `typed_config` of a type that envoy-data-plane knows; `name` is the type without the prefix."""
    return {"@type": TYPE_PREFIX + name, **fields}


def typed_struct(name: str, /, **fields: Json) -> JsonObject:
    """A `typed_config` of a type, or with a field, that only our newer Envoy knows."""
    return {"@type": TYPE_PREFIX + "xds.type.v3.TypedStruct", "type_url": TYPE_PREFIX + name, "value": fields}


def encode_route(route: JsonObject) -> bytes:
    """The bytes of an `envoy.config.route.v3.Route`."""
    return bytes(Route.from_dict(route))


def encode(type_url: str, resource: JsonObject) -> bytes:
    """The bytes of a top-level resource.

    Args:
        type_url: one of the four `*_TYPE` above.
        resource: its JSON form, durations as strings such as `"1.5s"`.

    Raises:
        KeyError, TypeError, ValueError: a field or type that Envoy's API does not have; a fault of the builder.
    """
    return bytes(_MESSAGE_BY_TYPE[type_url].from_dict(resource))
