"""The clusters with organisations' own keys, as bytes.

They are many, and those of one provider differ in the organisation's id alone, which stands in names only. Encoding one takes 20 ms; so one
is encoded for each provider, of an organisation whose id is as long and occurs nowhere, and the others are written from it.
"""

import json
from collections.abc import Mapping
from typing import Final

from control_plane.catalog.model import Catalog, OwnKey
from control_plane.xds import clusters
from control_plane.xds.protobuf import CLUSTER_TYPE, encode
from gateway_core.clusters import own_key_cluster
from gateway_core.ids import OrgId, ProviderName

_NOWHERE: Final = "\x1f"
"""A character that no field of a cluster may have."""


class OwnKeyClusters:
    """Remembers what the latest were written from."""

    def __init__(self, *, private_allowed: bool) -> None:
        self._private_allowed = private_allowed
        self._encoded: dict[str, bytes] = {}

    def encode(self, catalog: Catalog) -> Mapping[str, bytes]:
        """All of them, by name."""
        encoded: dict[str, bytes] = {}
        patterns: dict[tuple[ProviderName, int], bytes] = {}
        found = {}
        for key in catalog.own_keys:
            name = own_key_cluster(key.provider.name, key.org_id)
            if key.provider.aws_key is not None:
                # What it signs with stands in it.
                found[name] = self._one(key, key.org_id, encoded)
                continue
            org_id = key.org_id.encode()
            stand_in = _NOWHERE * len(org_id)
            at = key.provider.name, len(org_id)
            if at not in patterns:
                patterns[at] = self._one(key, OrgId(stand_in), encoded)
            found[name] = patterns[at].replace(stand_in.encode(), org_id)
        self._encoded = encoded
        return found

    def _one(self, key: OwnKey, org_id: OrgId, encoded: dict[str, bytes]) -> bytes:
        resource = clusters.provider(key.provider, org_id, private_allowed=self._private_allowed)
        text = json.dumps(resource, sort_keys=True)
        encoded[text] = content = self._encoded.get(text) or encode(CLUSTER_TYPE, resource)
        return content
