"""The instances of a service that runs several times. The first is called as the service itself, the second `<service>-2`."""

from collections.abc import Iterator
from typing import Final

REPLICAS_MAX: Final = 4
"""On one machine more of them show nothing new, and each is an interpreter."""


def instance(name: str, number: int) -> str:
    """The name of one instance, or of a port of one.

    Args:
        name: of the service or of the port.
        number: from 1 on.
    """
    return name if number == 1 else f"{name}-{number}"


def instances(name: str, replicas: int) -> Iterator[str]:
    """The names of all instances."""
    return (instance(name, number) for number in range(1, replicas + 1))
