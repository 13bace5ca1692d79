"""Statistics of Envoy that alerts and dashboards ask for, with their labels."""

from collections.abc import Mapping
from typing import Final

_OF_LISTENERS: Final = {"envoy_http_conn_manager_prefix"}
_OF_CLUSTERS: Final = {"envoy_cluster_name"}

OF_ENVOY: Final[Mapping[str, set[str]]] = {
    "envoy_http_downstream_rq_xx": {*_OF_LISTENERS, "envoy_response_code_class"},
    "envoy_http_downstream_rq_active": _OF_LISTENERS,
    "envoy_http_downstream_cx_active": _OF_LISTENERS,
    "envoy_http_lua_errors": _OF_LISTENERS,
    "envoy_cluster_lua_errors": _OF_CLUSTERS,
    "envoy_cluster_upstream_cx_connect_fail": _OF_CLUSTERS,
    "envoy_server_memory_physical_size": set(),
    "envoy_overload_envoy_resource_monitors_fixed_heap_pressure": set(),
    "envoy_overload_envoy_resource_monitors_global_downstream_max_connections_pressure": set(),
}
"""`tests/integration/test_envoy_statistics.py` has a real one tell them."""
