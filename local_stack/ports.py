"""Which ports a stack listens on: the ones it had before, else the ones people expect, else any.

A port is tried by binding it. It is also claimed, so that two stacks starting in the same second do not choose the same
one before either listens.
"""

import contextlib
import itertools
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self

from local_stack.instances import REPLICAS_MAX, instance, instances

DEFAULTS: Mapping[str, int | None] = {
    "gateway": 8080,
    "control_plane": 8081,
    "envoy_admin": 9901,
    "postgres": None,
    "valkey": None,
    "clickhouse": None,
    "simulator": None,
    "keepers": None,
    "control_plane_metrics": None,
    "xds": None,
    "ext_authz": None,
    "ext_authz_metrics": None,
    "billing_sink": None,
    "billing_sink_metrics": None,
    "translator": None,
    "translator_metrics": None,
    "response_cache": None,
    "response_cache_metrics": None,
}
"""Every port of a stack and where it is looked for first; None takes any. Those of further instances are looked for anywhere."""

PORTS_OF_EACH_INSTANCE = (
    "control_plane",
    "control_plane_metrics",
    "xds",
    "ext_authz",
    "ext_authz_metrics",
    "billing_sink",
    "billing_sink_metrics",
    "translator",
    "translator_metrics",
    "response_cache",
    "response_cache_metrics",
)

_HOST = "127.0.0.1"
_NEXT_TRIED = 100
_PORT_MAX = 65535


class PortTakenError(RuntimeError):
    """A port that was asked for by number is not free."""


class PortClaims:
    """The ports this process has spoken for, until it ends or the claims are closed."""

    def __init__(self) -> None:
        self._claims = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def take(self, port: int) -> bool:
        """Claim a port if nobody listens on it and no other stack has claimed it."""
        if not _is_free(port):
            return False
        if sys.platform == "linux":
            claim = socket.socket(socket.AF_UNIX)
            try:
                # A name without a file: it is per network namespace, like ports, and vanishes with the process.
                claim.bind(f"\0tollgate.port.{port}")
            except OSError:
                claim.close()
                return False
            self._claims.enter_context(claim)
        return True


def port_names(replicas: int) -> list[str]:
    """Every port of a stack that has so many of each service of ours."""
    further = [instance(name, number) for number in range(2, replicas + 1) for name in PORTS_OF_EACH_INSTANCE]
    return [*DEFAULTS, *further]


def replicas_of(ports: Mapping[str, int]) -> int:
    """How many of each service of ours a stack with these ports has."""
    return sum(name in ports for name in instances("control_plane", REPLICAS_MAX))


def choose(
    kept: Mapping[str, int],
    fixed: Mapping[str, int],
    *,
    replicas: int,
    take: Callable[[int], bool],
    any_port: Callable[[], int],
) -> dict[str, int]:
    """A port for every name.

    Args:
        kept: the choice of an earlier run; it holds where it is still free.
        fixed: ports that were asked for by number.
        replicas: how many of each service of ours there are.
        take: claims a port, and says whether that worked.
        any_port: a port that is probably free, another one at each call.

    Raises:
        PortTakenError: one of `fixed` is not free.
    """
    take_fixed(fixed, take=take)
    chosen = dict(fixed)
    for name in port_names(replicas):
        if name not in chosen:
            chosen[name] = next(port for port in _candidates(name, kept, any_port) if take(port))
    return chosen


def displaced(chosen: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Ports that others have where they were looked for first: by name, that one and the one that was chosen.

    One that was asked for by number is where it was asked for.
    """
    expected = {name: kept.get(name, port) for name, port in DEFAULTS.items() if port is not None}
    return {name: (port, chosen[name]) for name, port in expected.items() if chosen[name] != port}


def take_fixed(ports: Mapping[str, int], *, take: Callable[[int], bool]) -> None:
    """Take ports that were asked for by number.

    Raises:
        PortTakenError: one of them is not free.
    """
    for port in ports.values():
        if not take(port):
            raise PortTakenError(f"port {port} is not free; give another one with --port, or leave it to Tollgate")


def free_port() -> int:
    """A port of 127.0.0.1 nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _candidates(name: str, kept: Mapping[str, int], any_port: Callable[[], int]) -> Iterator[int]:
    first = DEFAULTS.get(name)
    near: Iterable[int] = () if first is None else range(first, min(first + _NEXT_TRIED, _PORT_MAX + 1))
    before = (kept[name],) if name in kept else ()
    return itertools.chain(before, near, iter(any_port, None))


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # Connections of a server that has just ended do not count; a server that listens does, with this option too.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError:
            return False
        return True
