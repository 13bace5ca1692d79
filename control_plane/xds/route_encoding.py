"""A route of the table as bytes. What it has in common with others is encoded once, and what is its own is put in.

envoy-data-plane takes milliseconds for a route, nearly all of it for what thousands have alike: how an attempt is repeated, its bounds, headers. Its
own are a name, metadata and the order of providers, for which the messages of `proto/route_table.proto` take a tenth of one.
"""

import json
from functools import lru_cache
from typing import Final

from google.protobuf.json_format import ParseDict

from control_plane.xds.protobuf import JsonObject, encode_route
from wire.route_table_pb2 import OnMatch, Route, TypedStruct

_ORDER: Final = "inline_cluster_specifier_plugin"
_KINDS_MAX: Final = 256
"""Of routes that have everything in common but what is their own: endpoints times policies, as a rule."""


def encode_on_match(on_match: JsonObject) -> bytes:
    """The bytes of the value of an exact-match map whose action is a route. Equal values give equal bytes.

    Args:
        on_match: the `xds.type.matcher.v3.Matcher.OnMatch` in its JSON form.

    Raises:
        KeyError, TypeError, ValueError: a field or type that Envoy's API does not have; a fault of the builder.
    """
    # A copy to take apart.
    action = json.loads(json.dumps(on_match))["action"]
    route = action["typed_config"]
    found = OnMatch()
    found.action.name = action["name"]
    found.action.typed_config.type_url = route.pop("@type")
    own = Route(name=route.pop("name"))
    ParseDict(route.pop("metadata", {}), own.metadata)
    if (order := route.get("route", {}).pop(_ORDER, None)) is not None:
        extension = own.route.inline_cluster_specifier_plugin.extension
        extension.name = order["extension"]["name"]
        config = order["extension"]["typed_config"]
        extension.typed_config.type_url = config.pop("@type")
        extension.typed_config.value = ParseDict(config, TypedStruct()).SerializeToString(deterministic=True)
    whole = Route.FromString(_encode_alike(json.dumps(route, sort_keys=True)))
    whole.MergeFrom(own)
    found.action.typed_config.value = whole.SerializeToString(deterministic=True)
    return found.SerializeToString(deterministic=True)


@lru_cache(_KINDS_MAX)
def _encode_alike(fields: str) -> bytes:
    return encode_route(json.loads(fields))
