"""For how much of each hour something was available, from what it was at which times. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

HOURS: Final = 24

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Turn:
    """From when on something was out, or was not."""

    since: datetime
    is_out: bool


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which it was out."""

    begin: datetime
    end: datetime

    def within(self, begin: datetime, end: datetime) -> timedelta:
        """How much of it is between two moments."""
        return max(min(self.end, end) - max(self.begin, begin), timedelta())


def available_percents(histories: Iterable[Sequence[Turn]], now: datetime) -> list[tuple[datetime, float]]:
    """Each hour up to now, the latest last, and for how much of it none of them was out.

    Args:
        histories: turns in their order; before the first one nothing was out.
        now: the end of the last hour.
    """
    out = _joined(span for history in histories for span in _spans(history, now))
    current = now.replace(minute=0, second=0, microsecond=0)
    found = []
    for number in reversed(range(HOURS)):
        begin = current - number * _HOUR
        end = min(begin + _HOUR, now)
        passed = end - begin
        missing = sum((span.within(begin, end) for span in out), timedelta())
        share = 1 - missing / passed if passed else 1 - float(any(span.begin <= now <= span.end for span in out))
        found.append((begin, round(100 * share, 2)))
    return found


def _spans(history: Sequence[Turn], now: datetime) -> Iterable[Span]:
    for number, turn in enumerate(history):
        if turn.is_out:
            end = history[number + 1].since if number + 1 < len(history) else now
            yield Span(turn.since, end)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The same times, none of them twice."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda each: each.begin):
        if joined and span.begin <= joined[-1].end:
            joined[-1] = Span(joined[-1].begin, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined
