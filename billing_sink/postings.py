"""From raw lines to what the ledger is told: each line becomes a posting, an attempt or a quarantine row. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing_sink.access_log import (
    FINISHED,
    PERIODIC,
    AttemptLine,
    InvalidLineError,
    SpoolLine,
    parse_any_line,
    request_id_of,
)
from billing_sink.kept import Forgotten, Kept, kept_by
from billing_sink.limits import ToldLimits, told_limits
from billing_sink.prices import PriceBook
from billing_sink.rating import UNRATEABLE, Rated, rate
from billing_sink.spool import RawBatch, RawLine, SpoolId
from gateway_core.ids import PriceVersion, ProviderName, RequestId

_NO_VERSION: Final = PriceVersion(0)

LINE_BEGIN: Final = b'{"'
"""How every line begins. Found inside a line, it may be the next one after one that was cut off without its newline."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One finished request, rated, under the id it is recorded by. The hash tells a replay from a conflict."""

    request_id: RequestId
    input_hash: bytes
    raw: RawLine
    rated: Rated


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that failed. It moves no money; its request and its moment are its identity, and the hash is as above."""

    input_hash: bytes
    raw: RawLine
    line: AttemptLine

    @property
    def identity(self) -> tuple[RequestId, datetime]:
        """The attempts of a request come one after the other, so no two begin at one moment."""
        return self.line.request_id, self.line.start_time


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A line, or a part of one, that a person has to look at.

    Attributes:
        line: what could be read of it, if it is a request that nobody could price: a person may then charge for it.
    """

    raw: RawLine
    reason: str
    request_id: RequestId | None = None
    line: SpoolLine | None = None


Read = tuple[RawLine, SpoolLine] | Attempt | Quarantined
"""What a line of the spool is found to be, before anything is rated."""


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Everything that follows from a stretch of the spool, to be written in one transaction with the offset."""

    spool_id: SpoolId
    begin: int
    end: int
    postings: Sequence[Posting]
    quarantined: Sequence[Quarantined]
    attempts: Sequence[Attempt] = ()
    limits: Sequence[ToldLimits] = ()
    kept: Sequence[Kept] = ()
    forgotten: Sequence[Forgotten] = ()


@dataclass(frozen=True, slots=True)
class ParsedLines:
    """A stretch of the spool, read but not yet rated."""

    begin: int
    end: int
    lines: Sequence[Read]

    def halves(self) -> tuple["ParsedLines", "ParsedLines"]:
        """The same lines in two stretches; there must be at least two."""
        middle = len(self.lines) // 2
        first, second = self.lines[:middle], self.lines[middle:]
        border = _raw(second[0]).byte_offset
        return ParsedLines(self.begin, border, first), ParsedLines(border, self.end, second)

    @property
    def newest_price_version(self) -> PriceVersion:
        """The newest price version any line was admitted under; 0 if none was."""
        lines = (item[1] for item in self.lines if isinstance(item, tuple))
        return max((line.granted.price_version or _NO_VERSION for line in lines if line.granted), default=_NO_VERSION)


def refuse_line(spool_id: SpoolId, parsed: ParsedLines, reason: str) -> SpoolBatch:
    """The batch that quarantines the one line of a stretch, whatever it was."""
    (item,) = parsed.lines
    raw = _raw(item)
    return SpoolBatch(spool_id, parsed.begin, parsed.end, (), (Quarantined(raw, reason, request_id_of(raw.content)),))


def _raw(item: Read) -> RawLine:
    return item[0] if isinstance(item, tuple) else item.raw


def parse_lines(raw: RawBatch) -> ParsedLines:
    """Read every line of a stretch of the spool."""
    return ParsedLines(raw.begin, raw.end, tuple(part for line in raw.lines for part in _parse(line)))


def make_batch(spool_id: SpoolId, parsed: ParsedLines, prices: PriceBook) -> SpoolBatch:
    """Rate every finished request. A request id occurs once among the postings, and an identity among the attempts."""
    postings: dict[RequestId, Posting] = {}
    attempts: dict[tuple[RequestId, datetime], Attempt] = {}
    limits: dict[tuple[ProviderName, str], ToldLimits] = {}
    quarantined: list[Quarantined] = []
    for item in parsed.lines:
        result = _rate(spool_id, *item, prices) if isinstance(item, tuple) else item
        if isinstance(result, Quarantined):
            quarantined.append(result)
        elif isinstance(result, Attempt):
            if (told := told_limits(result.line)) is not None:
                limits[told.deployment] = max(told, limits.get(told.deployment, told), key=lambda each: each.told_at)
            line = result.line
            is_told = line.has_failed and line.is_at_a_provider
            if is_told and attempts.setdefault(result.identity, result).input_hash != result.input_hash:
                quarantined.append(attempt_conflict(result))
        elif result is not None:
            first = postings.setdefault(result.request_id, result)
            if first.input_hash != result.input_hash:
                quarantined.append(conflict(result))
    about_kept = [kept_by(item[1]) for item in parsed.lines if isinstance(item, tuple)]
    return SpoolBatch(
        spool_id,
        parsed.begin,
        parsed.end,
        tuple(postings.values()),
        tuple(quarantined),
        tuple(attempts.values()),
        tuple(limits[deployment] for deployment in sorted(limits)),
        tuple(each for each in about_kept if isinstance(each, Kept)),
        tuple(each for each in about_kept if isinstance(each, Forgotten)),
    )


def conflict(posting: Posting) -> Quarantined:
    """The same request id with another input: a fault worth waking someone for."""
    return Quarantined(posting.raw, "conflict: this request id is recorded with another input", posting.request_id)


def attempt_conflict(attempt: Attempt) -> Quarantined:
    """The same of an attempt. Its request is not named: what is held for that does not wait for this."""
    return Quarantined(attempt.raw, "conflict: this attempt is recorded with another input")


def _parse(raw: RawLine) -> Iterable[Read]:
    """The lines in a raw line: one, or a torn one and the whole one that was appended to it."""
    try:
        yield _read(raw)
        return
    except InvalidLineError as error:
        reason = str(error)
    begin = len(raw.content)
    while (begin := raw.content.rfind(LINE_BEGIN, 0, begin)) > 0:
        tail = RawLine(raw.byte_offset + begin, raw.content[begin:])
        try:
            whole = _read(tail)
        except InvalidLineError:
            continue
        yield Quarantined(RawLine(raw.byte_offset, raw.content[:begin]), f"torn: {reason}")
        yield whole
        return
    yield Quarantined(raw, reason, request_id_of(raw.content))


def _read(raw: RawLine) -> Read:
    line = parse_any_line(raw.content)
    return Attempt(hash_of(raw), raw, line) if isinstance(line, AttemptLine) else (raw, line)


def _rate(spool_id: SpoolId, raw: RawLine, line: SpoolLine, prices: PriceBook) -> Posting | Quarantined | None:
    # An Envoy with a configuration from before writes of what still runs, too.
    if line.type == PERIODIC:
        return None
    if line.type != FINISHED:
        return Quarantined(raw, "neither the end of a request nor one that is running", line.request_id)
    # A connection that ended before there was a request or an answer has no id; its place in the spool is one.
    request_id = line.request_id or line.reply_id or RequestId(f"{spool_id}:{raw.byte_offset}")
    try:
        rated = rate(line, prices)
    except UNRATEABLE as error:
        return Quarantined(raw, f"{type(error).__name__}: {error}", request_id, line)
    return Posting(request_id, hash_of(raw), raw, rated)


def hash_of(raw: RawLine) -> bytes:
    """What tells a replay of a line from another line about the same request."""
    return hashlib.sha256(raw.content).digest()
