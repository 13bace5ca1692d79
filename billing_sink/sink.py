"""The loop from the spool to the ledger. Killed anywhere, it goes on from the last committed offset.

A commit costs as much as dozens of lines, so lines are let gather for a poll, except where a full batch says that more are waiting: then,
while Postgres posts one batch, the next one is read and rated in a thread. Batches are posted one after the other, in order.
"""

import asyncio
from collections import Counter as Counts
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_claim import SpoolClaim, Turn
from billing_sink.postgres_ledger import PostgresLedger, Unacceptable, encode
from billing_sink.postings import ParsedLines, SpoolBatch, make_batch, parse_lines, refuse_line
from billing_sink.prices import PriceBook
from billing_sink.spool import SpoolId, read_lines, spool_id
from gateway_core.logs import Logger
from gateway_core.mode import Mode
from gateway_core.postgres import Trouble

RETRY_S = 0.5
"""How long to wait when Postgres is in trouble. The spool keeps everything meanwhile."""

NO_ANSWER = "none"
ANSWERS = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
"""By the hundreds of a status."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stretch of a spool, made ready to be posted. What the file holds there does not change any more."""

    spool: SpoolId
    parsed: ParsedLines
    batch: SpoolBatch
    rows: str


def prepare(path: Path, spool: SpoolId, begin: int, *, lines_max: int, prices: PriceBook) -> Prepared | None:
    """Read and rate the lines from an offset on; None if there are none yet, or some need prices newer than these.

    Raises:
        SpoolTruncatedError: the file ends before `begin`.
    """
    raw = read_lines(path, begin, lines_max=lines_max)
    parsed = parse_lines(raw)
    if not raw.lines or prices.as_of < parsed.newest_price_version:
        return None
    return _rated(spool, parsed, prices)


def _rated(spool: SpoolId, parsed: ParsedLines, prices: PriceBook) -> Prepared:
    batch = make_batch(spool, parsed, prices)
    return Prepared(spool, parsed, batch, encode(batch.postings))


class Sink:
    """Reads one spool file, in order, batch after batch, while it has the claim to it; otherwise it stands by."""

    def __init__(
        self,
        path: Path,
        claim: SpoolClaim,
        ledger: PostgresLedger,
        prices: CurrentPrices,
        *,
        batch_lines: int,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._path = path
        self._claim = claim
        self._ledger = ledger
        self._prices = prices
        self._batch_lines = batch_lines
        self._log = log
        self._turn: Turn | None = None
        self._offset = 0
        self._ahead: Prepared | None = None
        self.is_caught_up = False
        """Whether this sink has the claim and had read the spool to its end at the last look."""
        self._requests = Counter(
            "tollgate_billing_sink_requests_total", "Finished requests recorded", ["outcome"], registry=registry
        )
        self._answers = Counter(
            "tollgate_billing_sink_answers_total",
            "The same by the class of the status they were answered with; none: without an answer",
            ["answer"],
            registry=registry,
        )
        self._price = Counter(
            "tollgate_billing_sink_price_nano_usd_total",
            "What requests cost their organisations, lines of batches apart; what no balance covered included",
            ["mode", "provider"],
            registry=registry,
        )
        self._cost = Counter(
            "tollgate_billing_sink_cost_nano_usd_total",
            "What the same requests cost us at their providers",
            ["mode", "provider"],
            registry=registry,
        )
        self._quarantined = Counter("tollgate_billing_sink_quarantined_total", "Lines quarantined", registry=registry)
        self._beyond_hold = Counter(
            "tollgate_billing_sink_beyond_hold_total",
            "Requests that cost more than was held for them",
            ["mode"],
            registry=registry,
        )
        self._absorbed = Counter(
            "tollgate_billing_sink_absorbed_nano_usd_total",
            "Cost of such requests that no balance covered",
            ["mode"],
            registry=registry,
        )
        self._estimated_with_references = Counter(
            "tollgate_billing_sink_estimated_with_references_total",
            "Requests that named what was not in them, and whose provider's figures never came",
            ["mode"],
            registry=registry,
        )
        # There from the start: a series that begins with an amount has not grown, to Prometheus.
        for answer in (*ANSWERS.values(), NO_ANSWER):
            self._answers.labels(answer)
        for mode in Mode:
            self._beyond_hold.labels(mode)
            self._absorbed.labels(mode)
            self._estimated_with_references.labels(mode)
        self._lag = Gauge(
            "tollgate_billing_sink_lag_bytes",
            "Bytes of the spool not yet in the ledger; 0 in a sink that stands by",
            registry=registry,
        )
        self._lag.set_function(self._unread_bytes)
        self._active = Gauge(
            "tollgate_billing_sink_active", "1 in the sink that works, 0 in one that stands by", registry=registry
        )
        self._active.set_function(lambda: float(claim.is_held))

    async def run(self, poll_s: float) -> None:
        """Follow the spool for ever, looking again at once while it is behind."""
        while True:
            try:
                await self.step()
            except Trouble as error:
                self._log.warning("ledger_unavailable", error=type(error).__name__)
                # The commit may have succeeded with its answer lost: ask again where the spool stands.
                self._turn = None
                await asyncio.sleep(RETRY_S)
                continue
            if self._ahead is None:
                await asyncio.sleep(poll_s)

    async def drain(self) -> None:
        """Post what is in the spool now, until there is no more."""
        # A commit may have been cut off while its answer was on the way.
        self._turn = None
        while await self.step():
            pass

    async def step(self) -> bool:
        """Post one batch; False when there was nothing to post, or the spool is another sink's.

        Raises:
            SpoolTruncatedError, SpoolMovedError: a person has to look.
            asyncpg.PostgresError, OSError: nothing happened, or all of it; call again.
        """
        advanced = await self._advance()
        self.is_caught_up = self._claim.is_held and not advanced
        return advanced

    async def _advance(self) -> bool:
        spool = spool_id(self._path)
        turn = None if spool is None else await self._claim.take(spool)
        if spool is None or turn is None:
            return False
        if turn != self._turn:
            self._offset = await self._ledger.offset(spool)
            self._turn = turn
            self._log.info("spool_claimed", offset=self._offset)
        now = self._ahead
        if now is None or (now.spool, now.parsed.begin) != (spool, self._offset):
            now = await self._prepare_now(spool)
        if now is None:
            return False
        # Nothing is taken from it before this batch is in the ledger, and nothing at all if it does not get there.
        self._ahead = None
        if len(now.parsed.lines) < self._batch_lines:
            await self._post(now)
            return True
        ahead = asyncio.create_task(asyncio.to_thread(self._prepare, spool, now.parsed.end), name="prepare_next_batch")
        try:
            await self._post(now)
        finally:
            await asyncio.wait([ahead])
        self._ahead = ahead.result()
        return True

    def _prepare(self, spool: SpoolId, begin: int) -> Prepared | None:
        return prepare(self._path, spool, begin, lines_max=self._batch_lines, prices=self._prices.book)

    async def _prepare_now(self, spool: SpoolId) -> Prepared | None:
        raw = read_lines(self._path, self._offset, lines_max=self._batch_lines)
        if not raw.lines:
            return None
        parsed = parse_lines(raw)
        return _rated(spool, parsed, await self._prices.at(parsed.newest_price_version))

    async def _post(self, prepared: Prepared) -> None:
        """Post lines; those the ledger cannot take are found by halving and quarantined, so that they stop no other."""
        spool, parsed = prepared.spool, prepared.parsed
        try:
            await self._commit(prepared.batch, prepared.rows)
        except Unacceptable as error:
            if len(parsed.lines) == 1:
                await self._commit(
                    refuse_line(spool, parsed, f"the ledger refuses it: {type(error).__name__}"), encode(())
                )
                return
            for half in parsed.halves():
                await self._post(_rated(spool, half, self._prices.book))

    async def _commit(self, batch: SpoolBatch, rows: str) -> None:
        quarantined, beyond_hold = await self._ledger.post(batch, rows)
        self._offset = batch.end
        for outcome, count in Counts(posting.rated.outcome for posting in batch.postings).items():
            self._requests.labels(outcome).inc(count)
        for rated in (posting.rated for posting in batch.postings):
            self._answers.labels(ANSWERS.get(rated.line.status // 100, NO_ANSWER)).inc()
            if rated.provider is not None:
                self._price.labels(rated.mode, rated.provider).inc(rated.charge.price_nano_usd)
                self._cost.labels(rated.mode, rated.provider).inc(rated.charge.cost_nano_usd)
        for mode, count in Counts(
            each.rated.mode for each in batch.postings if each.rated.is_estimated_with_references
        ).items():
            self._estimated_with_references.labels(mode).inc(count)
        for beyond in beyond_hold:
            self._beyond_hold.labels(beyond.mode).inc(beyond.requests)
            self._absorbed.labels(beyond.mode).inc(beyond.absorbed_nano_usd)
        self._quarantined.inc(len(quarantined))
        if quarantined:
            self._log.error("quarantined", reasons=sorted({item.reason for item in quarantined})[:10])
        self._log.info("spool_posted", postings=len(batch.postings), offset=batch.end)

    def _unread_bytes(self) -> float:
        if not self._claim.is_held:
            return 0
        try:
            return max(0, self._path.stat().st_size - self._offset)
        except FileNotFoundError:
            return 0
