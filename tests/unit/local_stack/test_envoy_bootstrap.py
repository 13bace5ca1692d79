import yaml

from local_stack.envoy import BOOTSTRAP, local_bootstrap


def test_only_the_addresses_and_the_name_differ_from_the_repositorys_bootstrap() -> None:
    given = yaml.safe_load(BOOTSTRAP.read_text())
    local = local_bootstrap(admin_port=1, xds_ports=[2])

    assert local["node"]["id"] == "local-1"
    assert local["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 1}
    (cluster,) = local["static_resources"]["clusters"]
    assert cluster["type"] == "STATIC"
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 2}

    assert local["dynamic_resources"] == given["dynamic_resources"]
    for part in given.keys() - {"node", "admin", "static_resources"}:
        assert local[part] == given[part]
    assert (
        cluster["typed_extension_protocol_options"]
        == given["static_resources"]["clusters"][0]["typed_extension_protocol_options"]
    )


def test_every_control_plane_is_dialled_in_turn() -> None:
    (cluster,) = local_bootstrap(admin_port=1, xds_ports=[2, 3, 4])["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    addresses = [each["endpoint"]["address"]["socket_address"] for each in locality["lb_endpoints"]]
    assert [address["port_value"] for address in addresses] == [2, 3, 4]
    assert "lb_policy" not in cluster
