"""One consistent set of Envoy's resources, with a version per type that is a hash of its content. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE

TYPES: Final = (CLUSTER_TYPE, SECRET_TYPE, LISTENER_TYPE, ROUTE_TYPE)


@dataclass(frozen=True, slots=True)
class TypedResources:
    """All resources of one type: name to bytes."""

    resources: Mapping[str, bytes]
    version: str

    @classmethod
    def of(cls, resources: Mapping[str, bytes]) -> "TypedResources":
        """The same resources give the same version on any replica and after a restart."""
        digest = hashlib.sha256()
        for name, content in sorted(resources.items()):
            for part in (name.encode(), content):
                digest.update(len(part).to_bytes(8))
                digest.update(part)
        return cls(resources, digest.hexdigest()[:16])


NONE: Final = TypedResources.of({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything Envoy is told, made from one catalogue revision."""

    revision: int
    by_type: Mapping[str, TypedResources]
