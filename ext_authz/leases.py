"""Leases: one answer to Envoy that lets more requests pass than the one that was asked about. Pure.

A lease is for requests of the same shape, each within the same bounds, and the money of all of them is taken from a slice
beforehand. Envoy spends it for less than a second and gives back, with a later question, what it did not need.
"""

from dataclasses import dataclass
from typing import Final, NewType

LeaseId = NewType("LeaseId", str)

BODY_BYTES_MIN: Final = 1024
"""A lease holds for bodies of this size at least, and for the next power of two where one is larger."""


def body_bound(body_bytes: int) -> int:
    """How long the bodies of a lease may be that a request of this size has asked for."""
    return max(BODY_BYTES_MIN, 1 << (body_bytes - 1).bit_length()) if body_bytes > 1 else BODY_BYTES_MIN


@dataclass(frozen=True, slots=True)
class Bounds:
    """What each request of a lease has to keep within.

    Attributes:
        max_output_tokens: what it has to be bounded by itself; None if it need not be.
    """

    body_bytes: int
    max_output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Lease:
    """What Envoy may let pass unasked, beside the request that asked; `uses` is at least 1."""

    lease_id: LeaseId
    uses: int
    ttl_ms: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Unspent:
    """What Envoy gives back of a lease."""

    lease_id: LeaseId
    uses: int
