"""What Postgres announces of keys, read from the payload of `Channel.API_KEY`. Pure.

Anybody who may connect to the database can announce something, so a payload is read strictly, and a number that it brings is
not believed until Postgres has confirmed it (`accounts.report_authorizer`).
"""

import re
from dataclasses import dataclass
from typing import Final

from gateway_core.api_keys import KeyHash
from gateway_core.ids import OrgId

_PAYLOAD: Final = re.compile(
    r"(?P<number>[0-9]{1,18}):(?:(?P<hashes>[0-9a-f]{64}(?:,[0-9a-f]{64}){0,3})|(?P<org_id>org_[0-9A-Za-z_-]{1,100}))"
)


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """A key has changed; these are all the hashes it has or had."""

    number: int
    hashes: tuple[KeyHash, ...]


@dataclass(frozen=True, slots=True)
class OrgChanged:
    """Every key of an organisation has changed."""

    number: int
    org_id: OrgId


def read_announcement(payload: str) -> KeyChanged | OrgChanged | None:
    """The change that is announced; None for what is none of ours."""
    parts = _PAYLOAD.fullmatch(payload)
    if parts is None:
        return None
    number = int(parts["number"])
    if parts["org_id"] is not None:
        return OrgChanged(number, OrgId(parts["org_id"]))
    return KeyChanged(number, tuple(KeyHash(bytes.fromhex(text)) for text in parts["hashes"].split(",")))
