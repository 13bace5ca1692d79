"""What a finished request has had a provider keep, or keep no longer, and whose that is: by its line. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from billing_sink.access_log import FINISHED, SpoolLine
from gateway_core.clusters import Cluster, provider_of_cluster
from gateway_core.endpoints import FACTS
from gateway_core.ids import KeyId, OrgId, ProjectId, ProviderName
from gateway_core.kept import InvalidKeptNameError, KeptKind, KeptName, checked_id
from gateway_core.mode import Mode
from gateway_core.usage import HTTP_OK

FILE_BYTES_MAX: Final = 2**50
"""Nobody keeps a longer file."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that a provider keeps from now on.

    Attributes:
        provider: None for the simulator.
        about: what the provider said of it, as JSON text; None where that is the id alone.
        file_bytes: how long a file is; 0 where the provider has not said.
    """

    name: KeptName
    mode: Mode
    org_id: OrgId
    project_id: ProjectId
    key_id: KeyId
    provider: ProviderName | None
    created_at: datetime
    expires_at: datetime | None = None
    about: str | None = None
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Something that a provider keeps no longer."""

    name: KeptName
    mode: Mode
    org_id: OrgId
    at: datetime


def kept_by(line: SpoolLine) -> Kept | Forgotten | None:
    """What has to be written down of it; None if nothing is.

    A line that says something else than an answer with an id of ours tells of nothing: the front filter has withheld that answer.
    """
    asked, grant = line.request, line.granted
    if (
        line.type != FINISHED
        or asked is None
        or asked.endpoint is None
        or grant is None
        or grant.error_code is not None
    ):
        return None
    if grant.org_id is None or grant.project_id is None or grant.key_id is None:
        return None
    facts = FACTS[asked.endpoint]
    if facts.forgets and line.status in HTTP_OK and asked.named is not None:
        return Forgotten(asked.named, grant.mode, grant.org_id, line.start_time)
    # Whatever the client was answered: what is here, the provider has said.
    if facts.keeps is None or line.kept is None:
        return None
    provider = provider_of_cluster(line.cluster or "")
    is_stray = (line.cluster == Cluster.SIMULATOR) != (grant.mode is Mode.TEST) or (
        grant.mode is Mode.LIVE and provider is None
    )
    if is_stray:
        return None
    try:
        said = json.loads(line.kept)
        name = KeptName(facts.keeps, checked_id(said["id"]))
    except (ValueError, TypeError, KeyError, InvalidKeptNameError):
        return None
    return Kept(
        name,
        grant.mode,
        grant.org_id,
        grant.project_id,
        grant.key_id,
        ProviderName(provider) if provider else None,
        line.start_time,
        moment_of(said.get("expires_at")),
        None if facts.keeps is KeptKind.RESPONSE else line.kept,
        length_of(said),
    )


def length_of(said: Mapping[str, object]) -> int:
    """How long a file is, by what its provider says of it; 0 if that is nothing."""
    length = said.get("bytes")
    return length if type(length) is int and 0 <= length <= FILE_BYTES_MAX else 0


def moment_of(seconds: object) -> datetime | None:
    """A time as providers write it: seconds since 1970."""
    if not isinstance(seconds, int):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
