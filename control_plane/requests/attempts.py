"""The attempts of a request, from what is recorded of the failed ones and of the request itself; and why each was given up. Pure.

An attempt that did not fail has no row of its own: it is the last one, and the request's row is about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from control_plane.requests.model import Attempt
from gateway_core.money import NanoUsd, format_usd

_ERROR_FROM: Final = 400

_WORDS: Final[Mapping[str, str]] = {
    "DC": "the client went away",
    "DI": "delayed on purpose",
    "DPE": "the client's connection broke the protocol",
    "DT": "it ran longer than any request may",
    "LH": "the provider is not healthy",
    "LR": "reset by the gateway",
    "NC": "no such provider",
    "NR": "no route",
    "OM": "the gateway was short of memory",
    "RL": "as much as the provider may be asked, or the share of its organisation",
    "RLSE": "the rate limit could not be asked",
    "SI": "nothing came for too long",
    "UAEX": "refused by admission",
    "UC": "the provider closed the connection",
    "UF": "no connection to the provider",
    "UH": "no host of the provider was healthy",
    "UMSDR": "it ran longer than it may",
    "UO": "as many requests as the provider may have at once",
    "UPE": "the provider broke the protocol",
    "UR": "reset by the provider",
    "URX": "no attempt was left",
    "UT": "no answer in the time for one attempt",
}
"""Envoy's response flags."""

_NEVER_SENT: Final = frozenset({"RL", "UF", "UH", "UO"})
"""Flags of an attempt that reached nobody."""

_STATUSES: Final[Mapping[int, str]] = {
    401: "it does not take our credential",
    403: "it does not allow it with our credential",
    408: "it did not get the request in time",
    429: "too many requests",
    503: "it is not available",
    529: "it is overloaded",
}


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A row of `billing.attempts`."""

    started_at: datetime
    provider: str | None
    upstream_model: str | None
    host: str | None
    status: int
    response_flags: str | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Last:
    """What the request's own row says of the last attempt.

    Attributes:
        attempts: how many there were.
        cost_nano_usd: None while nobody knows.
    """

    attempts: int
    started_at: datetime
    duration_ms: int
    provider: str | None
    upstream_model: str | None
    status: int
    response_flags: str | None
    cost_nano_usd: NanoUsd | None


def in_words(flags: str | None) -> list[str]:
    """Envoy's flags, `-` for none, as words. One that is not known here stays as it is."""
    return [] if flags in {None, "", "-"} else [_WORDS.get(flag, flag) for flag in (flags or "").split(",")]


def why_given_up(status: int, flags: str | None) -> str:
    """In words."""
    if words := in_words(flags):
        return ", ".join(words)
    meaning = _STATUSES.get(status)
    return f"it answered {status}" + (f": {meaning}" if meaning else "")


def attempts_of(last: Last, failed: Sequence[FailedAttempt], *, for_operator: bool) -> list[Attempt]:
    """All attempts of a request in their order."""
    rows = sorted(failed, key=lambda each: each.started_at)
    is_last_told = len(rows) >= last.attempts
    found = []
    for number, row in enumerate(rows, start=1):
        is_last = is_last_told and number == len(rows)
        # Of what was delivered of it the ledger knows; of what was not, as little as of the others.
        cost = (is_last and last.cost_nano_usd) or _cost(row)
        found.append(
            Attempt(
                number=number,
                provider=row.provider,
                upstream_model=row.upstream_model,
                host=row.host if for_operator else None,
                started_at=row.started_at,
                duration_ms=row.duration_ms,
                status=row.status or None,
                flags=in_words(row.response_flags),
                tried_next_because=None if is_last else why_given_up(row.status, row.response_flags),
                cost=_shown(cost, for_operator=for_operator),
            )
        )
    if not is_last_told:
        ended_at = last.started_at + timedelta(milliseconds=last.duration_ms)
        started_at = max((each.started_at + timedelta(milliseconds=each.duration_ms) for each in found), default=None)
        began = started_at or last.started_at
        found.append(
            Attempt(
                number=last.attempts,
                provider=last.provider,
                upstream_model=last.upstream_model,
                host=None,
                started_at=began,
                duration_ms=max(0, (ended_at - began) // timedelta(milliseconds=1)),
                status=last.status or None,
                flags=in_words(last.response_flags),
                tried_next_because=None,
                cost=_shown(last.cost_nano_usd, for_operator=for_operator),
            )
        )
    return found


def _cost(attempt: FailedAttempt) -> NanoUsd | None:
    never_sent = not _NEVER_SENT.isdisjoint((attempt.response_flags or "").split(","))
    return NanoUsd(0) if never_sent or attempt.status >= _ERROR_FROM else None


def _shown(amount: NanoUsd | None, *, for_operator: bool) -> str | None:
    return format_usd(amount) if for_operator and amount is not None else None
