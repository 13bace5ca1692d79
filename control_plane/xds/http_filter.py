"""An HTTP filter of a listener or a cluster, and the changes of headers that many of them are."""

from collections.abc import Mapping
from typing import Final

from control_plane.xds.protobuf import Json, JsonObject, typed

SKIP: Final[JsonObject] = {
    "name": "skip",
    "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"),
}


def http_filter(name: str, config: JsonObject) -> JsonObject:
    """A filter; Envoy finds it by the type of its configuration, and shows it by its name."""
    return {"name": name, "typed_config": config}


def header_mutation(mutations: list[Json]) -> JsonObject:
    """The configuration of a filter that changes the headers of requests."""
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", mutations={"request_mutations": mutations}
    )


def overwritten(headers: Mapping[str, str]) -> JsonObject:
    """The same: it writes these over what is there. What stands between percent signs is a command of Envoy's."""
    return header_mutation(
        [
            {"append": {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
            for key, value in headers.items()
        ]
    )
