"""The loop from the spool to the ledger. Killed anywhere, it goes on from the last committed offset."""

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from billing_sink.postgres_claim import SpoolClaim, Turn
from billing_sink.postgres_ledger import PostgresLedger, Unacceptable
from billing_sink.postings import Batch, ParsedLines, make_batch, parse_lines, refuse_line
from billing_sink.prices import PriceBook
from billing_sink.spool import SpoolId, read_lines, spool_id
from gateway_core.ids import PriceVersion
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

RETRY_S = 0.5
"""How long to wait when Postgres is in trouble. The spool keeps everything meanwhile."""


class Sink:
    """Reads one spool file, in order, batch after batch, while it has the claim to it; otherwise it stands by."""

    def __init__(
        self,
        path: Path,
        claim: SpoolClaim,
        ledger: PostgresLedger,
        *,
        batch_lines: int,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._path = path
        self._claim = claim
        self._ledger = ledger
        self._batch_lines = batch_lines
        self._log = log
        self._turn: Turn | None = None
        self._offset = 0
        self._prices = PriceBook.of(PriceVersion(0), ())
        self.is_caught_up = False
        """Whether this sink has the claim and had read the spool to its end at the last look."""
        self._requests = Counter(
            "tollgate_billing_sink_requests_total", "Finished requests recorded", ["outcome"], registry=registry
        )
        self._quarantined = Counter("tollgate_billing_sink_quarantined_total", "Lines quarantined", registry=registry)
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
        """Follow the spool for ever."""
        while True:
            try:
                advanced = await self.step()
            except Trouble as error:
                self._log.warning("ledger_unavailable", error=type(error).__name__)
                # The commit may have succeeded with its answer lost: ask again where the spool stands.
                self._turn = None
                await asyncio.sleep(RETRY_S)
                continue
            if not advanced:
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
        raw = read_lines(self._path, self._offset, lines_max=self._batch_lines)
        if not raw.lines:
            return False
        parsed = parse_lines(raw)
        if self._prices.as_of < parsed.newest_price_version:
            self._prices = await self._ledger.read_prices(self._prices)
        await self._post(spool, parsed, self._prices)
        return True

    async def _post(self, spool_id: SpoolId, parsed: ParsedLines, prices: PriceBook) -> None:
        """Post lines; those the ledger cannot take are found by halving and quarantined, so that they stop no other."""
        batch = make_batch(spool_id, parsed, prices)
        try:
            await self._commit(batch)
        except Unacceptable as error:
            if len(parsed.lines) == 1:
                await self._commit(refuse_line(spool_id, parsed, f"the ledger refuses it: {type(error).__name__}"))
                return
            for half in parsed.halves():
                await self._post(spool_id, half, prices)

    async def _commit(self, batch: Batch) -> None:
        quarantined = await self._ledger.post(batch)
        self._offset = batch.end
        for posting in batch.postings:
            self._requests.labels(posting.rated.outcome).inc()
        self._quarantined.inc(len(quarantined))
        if quarantined:
            self._log.error("quarantined", reasons=sorted({item.reason for item in quarantined})[:10])
        self._log.info("batch_posted", postings=len(batch.postings), offset=batch.end)

    def _unread_bytes(self) -> float:
        if not self._claim.is_held:
            return 0
        try:
            return max(0, self._path.stat().st_size - self._offset)
        except FileNotFoundError:
            return 0
