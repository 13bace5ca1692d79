"""What Postgres announces of keys, read from the payload of `Channel.API_KEY`. Pure.

Anybody who may connect to the database can announce something, so a payload is read strictly, and a number that it brings is
not believed until Postgres has confirmed it (`accounts.report_authorizer`).
"""

import re
from dataclasses import dataclass
from typing import Final

from gateway_core.api_keys import KeyHash
from gateway_core.ids import OrgId, ProjectId

_PAYLOAD: Final = re.compile(
    r"(?P<number>[0-9]{1,18}):(?:(?P<hashes>[0-9a-f]{64}(?:,[0-9a-f]{64}){0,3})"
    r"|(?P<org_id>org_[0-9A-Za-z_-]{1,100})|(?P<project_id>prj_[0-9A-Za-z_-]{1,100}))"
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


@dataclass(frozen=True, slots=True)
class ProjectChanged:
    """Every key of a project has changed."""

    number: int
    project_id: ProjectId


def read_announcement(payload: str) -> KeyChanged | OrgChanged | ProjectChanged | None:
    """The change that is announced; None for what is none of ours."""
    parts = _PAYLOAD.fullmatch(payload)
    if parts is None:
        return None
    number = int(parts["number"])
    if parts["org_id"] is not None:
        return OrgChanged(number, OrgId(parts["org_id"]))
    if parts["project_id"] is not None:
        return ProjectChanged(number, ProjectId(parts["project_id"]))
    return KeyChanged(number, tuple(KeyHash(bytes.fromhex(text)) for text in parts["hashes"].split(",")))
