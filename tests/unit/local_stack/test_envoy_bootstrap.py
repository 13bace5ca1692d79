import json
import re
from pathlib import Path

import yaml

from local_stack.envoy import BOOTSTRAP, local_bootstrap


def test_addresses_and_the_name_differ_from_the_repositorys_bootstrap() -> None:
    given = yaml.safe_load(BOOTSTRAP.read_text())
    local = local_bootstrap(admin_port=1, xds_ports=[2], certificates=Path("/data"))

    assert local["node"]["id"] == "local-1"
    assert local["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 1}
    (cluster,) = local["static_resources"]["clusters"]
    assert cluster["type"] == "STATIC"
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 2}

    assert local["dynamic_resources"] == given["dynamic_resources"]
    for part in given.keys() - {"node", "admin", "static_resources"}:
        assert local[part] == given[part]
    secrets = json.dumps(local["static_resources"]["secrets"])
    assert re.findall(r'"filename": "([^"]*)"', secrets) == ["/data/envoy.crt", "/data/envoy.key", "/data/ca.crt"]
    assert json.loads(secrets.replace("/data/", "/run/secrets/")) == given["static_resources"]["secrets"]
    [theirs] = (each for each in given["static_resources"]["clusters"] if each["name"] == cluster["name"])
    for part in ("transport_socket", "typed_extension_protocol_options"):
        assert cluster[part] == theirs[part]


def test_statistics_have_no_listener_here() -> None:
    local = local_bootstrap(admin_port=1, xds_ports=[2], certificates=Path("/data"))
    assert local["static_resources"].keys() == {"secrets", "clusters"}


def test_every_control_plane_is_dialled_in_turn() -> None:
    (cluster,) = local_bootstrap(admin_port=1, xds_ports=[2, 3, 4], certificates=Path("/data"))["static_resources"][
        "clusters"
    ]
    (locality,) = cluster["load_assignment"]["endpoints"]
    addresses = [each["endpoint"]["address"]["socket_address"] for each in locality["lb_endpoints"]]
    assert [address["port_value"] for address in addresses] == [2, 3, 4]
    assert "lb_policy" not in cluster
