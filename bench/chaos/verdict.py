"""What clients saw beside what the books say: nothing lost, nothing twice, nothing for free. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

UNFLUSHED_S: Final = 1.0
"""How long before its death an Envoy may have ended a request whose line dies with it: five times its flush interval."""
_OK: Final = 200
_CHARGED: Final = ("settled", "estimated")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it; moments are monotonic.

    Attributes:
        client_request_id: the id that the client gave it.
        org_id: who asked.
        status: None if there was no answer.
        request_id: as the answer names it.
        delivered_bytes: of the answer's body.
        is_whole: the answer came to its end. A client that leaves early does not see that.
        is_refused: an answer that the same request would not have had on a good day, or none.
    """

    client_request_id: str
    org_id: str
    began_s: float
    ended_s: float
    status: int | None
    request_id: str | None
    delivered_bytes: int
    is_whole: bool
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of `billing.requests`, and how often it was charged."""

    request_id: str
    outcome: str
    price_nano_usd: int
    charges: int


@dataclass
class Verdict:
    """What became of some requests: each is in one of `outcomes`, or lost.

    Attributes:
        outcomes: how many rows there are of each. Without a row are, where Envoy was killed, those that it had no time to write a line
            of, `expired`: what was held for them goes back when its time is over; and those that found nobody listening, `unanswered`.
        lost: answered, and in no book, though their Envoy had the time to write.
        doubled: with two rows, or two charges.
        unmetered: delivered without a charge.
        mistaken: answered whole and not settled, or charged without an answer that was good.
        unflushed_s: how long before the kill the oldest of the expired ended.
    """

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    expired: list[Seen] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unmetered: list[str] = field(default_factory=list)
    mistaken: list[str] = field(default_factory=list)
    unflushed_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Nothing is wrong with any of them."""
        return not (self.lost or self.doubled or self.unmetered or self.mistaken)


def judge(
    seen: Sequence[Seen], recorded: Mapping[str, Sequence[Recorded]], *, envoy_killed_s: float | None = None
) -> Verdict:
    """Lay what clients saw beside the books.

    Args:
        seen: requests that have ended.
        recorded: what the books have of them, by the client's id.
        envoy_killed_s: when Envoy was killed meanwhile, if it was.
    """
    verdict = Verdict()
    for each in seen:
        verdict.requests += 1
        rows = recorded.get(each.client_request_id, ())
        if len(rows) > 1 or any(row.charges > 1 for row in rows):
            verdict.doubled.append(each.client_request_id)
        for row in rows:
            verdict.outcomes[row.outcome] += 1
            _compare(each, row, verdict)
        if not rows:
            if envoy_killed_s is not None and each.status is None:
                verdict.outcomes["unanswered"] += 1
            elif envoy_killed_s is not None and each.began_s <= envoy_killed_s <= each.ended_s + UNFLUSHED_S:
                verdict.outcomes["expired"] += 1
                verdict.expired.append(each)
                verdict.unflushed_s = max(verdict.unflushed_s, envoy_killed_s - each.ended_s)
            else:
                verdict.lost.append(each.client_request_id)
    return verdict


def _compare(seen: Seen, row: Recorded, verdict: Verdict) -> None:
    is_charged = row.outcome in _CHARGED and row.price_nano_usd > 0
    is_good = seen.status == _OK
    if is_good and seen.delivered_bytes > 0 and not is_charged:
        verdict.unmetered.append(seen.client_request_id)
    if is_good and seen.is_whole and row.outcome != "settled":
        verdict.mistaken.append(seen.client_request_id)
    if not is_good and seen.status is not None and is_charged:
        verdict.mistaken.append(seen.client_request_id)
