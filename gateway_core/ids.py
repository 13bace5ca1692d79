"""Identifiers: their types, and how new ones are made.

Pure but for the randomness, which is passed in.
"""

from collections.abc import Callable
from typing import NewType

RequestId = NewType("RequestId", str)
OrgId = NewType("OrgId", str)
ProjectId = NewType("ProjectId", str)
KeyId = NewType("KeyId", str)
ProviderName = NewType("ProviderName", str)
ModelName = NewType("ModelName", str)
SliceId = NewType("SliceId", str)
PriceVersion = NewType("PriceVersion", int)
"""A catalogue revision. The prices in force at admission are those of the newest revision not above it."""

RandomBytes = Callable[[int], bytes]
"""Returns that many random bytes; `secrets.token_bytes` in production."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str, random_bytes: RandomBytes) -> str:
    """A new id such as `org_7c2k...`: the prefix and 80 random bits in 16 characters."""
    number = int.from_bytes(random_bytes(10))
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))
