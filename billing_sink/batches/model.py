"""A batch as it is remembered, and as clients are told of it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import ApiError
from gateway_core.ids import KeyId, OrgId, ProjectId, ProviderName, RequestId
from gateway_core.kept import InvalidKeptNameError, ObjectId, checked_id
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd

JsonObject = Mapping[str, object]

COMPLETION_WINDOW: Final = "24h"
HOLD_TTL: Final = timedelta(hours=48)
"""For the window, and a day for the provider to come to an end and for us to hear of it."""

LOST_AFTER: Final = timedelta(minutes=15)
"""What a provider has been asked to do about a batch, and has not done by then, it never will: nobody waits so long for its answer."""

OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})
"""What a provider says of a batch of which nothing more will come."""

MARK: Final = "tollgate_batch"
"""The one member of what a provider is told as the metadata of a batch: our id of it."""


class BatchRefusedError(Exception):
    """What a client asks for is not done, or nobody knows; the error says it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.code)
        self.error = error


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was accepted.

    Attributes:
        provider: None for the simulator.
        sent_file_id: what the provider was sent in the place of the client's input; None while nobody knows whether it has it.
        upstream_id: the provider's id; None while nobody knows whether there is one.
        said: what the provider said last of it.
        ended_at: since when it is settled.
    """

    batch_id: ObjectId
    mode: Mode
    org_id: OrgId
    project_id: ProjectId
    key_id: KeyId
    provider: ProviderName | None
    endpoint: Endpoint
    input_file_id: ObjectId
    metadata: Mapping[str, str]
    created_at: datetime
    sent_file_id: ObjectId | None = None
    upstream_id: str | None = None
    said: JsonObject | None = None
    ended_at: datetime | None = None

    @property
    def request_id(self) -> RequestId:
        """Under which its hold is placed, and ends."""
        return RequestId(self.batch_id)

    @property
    def is_over(self) -> bool:
        """Whether the provider has said so."""
        return self.said is not None and self.said.get("status") in OVER

    def document(self) -> dict[str, object]:
        """As OpenAI describes a batch. It is over once it is settled, and its files are told of once they are their owner's."""
        said = self.said or {}
        status = said.get("status", "validating")
        if self.is_over and self.ended_at is None:
            status = _BEFORE_THE_END.get(str(status), "finalizing")
        told = {name: said.get(name) for name in _TIMES}
        if self.ended_at is None:
            told |= dict.fromkeys(_TIMES_OF_THE_END)
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": FACTS[self.endpoint].path,
            "errors": said.get("errors"),
            "input_file_id": self.input_file_id,
            "completion_window": COMPLETION_WINDOW,
            "status": "failed" if self.ended_at and not self.is_over else status,
            "output_file_id": said.get("output_file_id") if self.ended_at else None,
            "error_file_id": said.get("error_file_id") if self.ended_at else None,
            "created_at": int(self.created_at.timestamp()),
            **told,
            "request_counts": said.get("request_counts") or {"total": 0, "completed": 0, "failed": 0},
            "metadata": dict(self.metadata) or None,
        }


@dataclass(frozen=True, slots=True)
class RememberedLine:
    """What is known of a line before it is answered.

    Attributes:
        request_id: under which it is posted.
        amount: its part of the batch's hold.
        told: `request` and `grant` of its line, as a line of the spool has them, as JSON text.
    """

    custom_id: str
    request_id: RequestId
    amount: NanoUsd
    told: str


_BEFORE_THE_END: Final = {"cancelled": "cancelling"}
_TIMES_OF_THE_END: Final = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_TIMES: Final = ("in_progress_at", "expires_at", "finalizing_at", "cancelling_at", *_TIMES_OF_THE_END)


def parse_said(text: str | bytes) -> JsonObject | None:
    """What a provider says of a batch or a file; None if that is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def id_in(said: JsonObject, name: str) -> ObjectId | None:
    """An id that a provider says; None if that is none."""
    found = said.get(name)
    try:
        return checked_id(found) if isinstance(found, str) else None
    except InvalidKeptNameError:
        return None
