"""A snapshot as a static bootstrap, for Envoy's own verdict on it: routes stand inline, secrets are found by name. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Json, JsonObject


def static_bootstrap(resources: Iterable[tuple[str, JsonObject]], base: JsonObject) -> JsonObject:
    """A bootstrap with the resources in it instead of a control plane to ask for them.

    Args:
        resources: those of one snapshot, each with its type.
        base: a bootstrap that says the rest, or as much of it as is of interest.
    """
    by_type: dict[str, list[JsonObject]] = {}
    for type_url, resource in resources:
        by_type.setdefault(type_url, []).append(resource)
    routes = {str(each["name"]): each for each in by_type[ROUTE_TYPE]}
    return {
        **{name: value for name, value in base.items() if name != "dynamic_resources"},
        "static_resources": {
            "clusters": [
                *_static_resources(base, "clusters"),
                *(_static(cluster, routes) for cluster in by_type[CLUSTER_TYPE]),
            ],
            "listeners": [_static(listener, routes) for listener in by_type[LISTENER_TYPE]],
            "secrets": [
                *_static_resources(base, "secrets"),
                *(_static(secret, routes) for secret in by_type.get(SECRET_TYPE, [])),
            ],
        },
    }


def _static_resources(base: JsonObject, kind: str) -> Sequence[Json]:
    match base.get("static_resources"):
        case Mapping() as resources if isinstance(found := resources.get(kind, ()), Sequence):
            return found
        case _:
            return ()


def _static(value: Json, routes: Mapping[str, JsonObject]) -> Json:
    match value:
        case str():
            return value
        case Mapping():
            copy = {key: _static(item, routes) for key, item in value.items() if key not in {"rds", "sds_config"}}
            match value.get("rds"):
                case {"route_config_name": str(name)}:
                    return copy | {"route_config": _static(routes[name], routes)}
                case _:
                    return copy
        case Sequence():
            return [_static(item, routes) for item in value]
        case _:
            return value
