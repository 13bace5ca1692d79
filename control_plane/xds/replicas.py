"""What Envoy does when one of several replicas of a service of ours is gone or does not answer: it asks another one.

Only for questions that may be asked twice: a replica that is gone may have done what it was asked to.
"""

from typing import Final

from control_plane.xds.protobuf import JsonObject, typed

_PAUSE: Final = "0.005s"
"""Short, because it is another host that is asked."""

_ANOTHER_HOST: Final[JsonObject] = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
    "host_selection_retry_max_attempts": 5,
}

EJECTION: Final[JsonObject] = {
    # After five failures in a row: not reached, no answer in time, or an error of gRPC or HTTP.
    "interval": "0.5s",
    # No longer each time, as is usual: what has come back is wanted when the next one is restarted.
    "base_ejection_time": "1s",
    "max_ejection_time": "1s",
    # Half of them carry on in any case, as when what they all depend on is gone; the only one is never ejected.
    "max_ejection_percent": 50,
}
"""The outlier detection of a cluster of replicas: without it every request would find out anew which one is gone."""


def route_retries(*, attempt_timeout: str) -> JsonObject:
    """The retry policy of a route to replicas."""
    return {
        **_ANOTHER_HOST,
        "retry_back_off": {"base_interval": _PAUSE, "max_interval": "0.05s"},
        "per_try_timeout": attempt_timeout,
    }


def grpc_retries(*, attempt_timeout: str) -> JsonObject:
    """The retry policy of a filter that asks replicas over gRPC."""
    # Envoy takes the longest pause for the time-out of an attempt too, and has no setting of its own for that.
    return {**_ANOTHER_HOST, "retry_back_off": {"base_interval": _PAUSE, "max_interval": attempt_timeout}}
