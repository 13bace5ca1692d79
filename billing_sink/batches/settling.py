"""Follows batches until they are over, and then posts what their lines have used. One process does, for all; killed anywhere, it begins anew.

A line has an id of its own, so that one which is posted already is not posted again.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from billing_sink.batches.keepers import ANSWERED_BYTES_MAX, KeeperError, Keepers
from billing_sink.batches.model import LOST_AFTER, Batch, id_in
from billing_sink.batches.outcomes import end_of, parse_answer, rate_answers
from billing_sink.batches.postgres_batches import PostgresBatches
from billing_sink.batches.sent_inputs import SentInputs
from billing_sink.current_prices import CurrentPrices
from billing_sink.kept import Kept, length_of, moment_of
from billing_sink.prices import PriceBook
from gateway_core.clock import Now
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

LINES_AT_ONCE: Final = 1000
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
"""And no further line once they have so many bytes."""


class Settling:
    """Looks after every open batch."""

    def __init__(
        self,
        batches: PostgresBatches,
        keepers: Keepers,
        inputs: SentInputs,
        prices: CurrentPrices,
        *,
        now: Now,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._batches = batches
        self._keepers = keepers
        self._inputs = inputs
        self._prices = prices
        self._now = now
        self._log = log
        self._open = Gauge("tollgate_billing_sink_batches_open", "Batches that are not settled", registry=registry)
        self._oldest = Gauge(
            "tollgate_billing_sink_batches_oldest_seconds",
            "How long the batch has been open that is longest; 0 where there is none, or another process looks",
            registry=registry,
        )
        self._ended = Counter(
            "tollgate_billing_sink_batches_ended_total", "Batches that were settled", ["outcome"], registry=registry
        )
        self._quarantined = Counter(
            "tollgate_billing_sink_batch_lines_quarantined_total", "Lines of batches set aside", registry=registry
        )

    async def look(self) -> None:
        """Look at all of them once, if nobody else does.

        Raises:
            asyncpg.PostgresError, OSError: the rest waits for the next time.
        """
        async with self._batches.turn() as has_turn:
            batches = await self._batches.open() if has_turn else ()
            self._open.set(len(batches))
            now = self._now()
            self._oldest.set(max(((now - each.created_at).total_seconds() for each in batches), default=0))
            for batch in batches:
                try:
                    await self._look_at(batch)
                except (KeeperError, *Trouble) as error:
                    # Others may be at another provider.
                    self._log.warning(
                        "batch_unsettled", batch_id=batch.batch_id, error=f"{type(error).__name__}: {error}"
                    )
            if has_turn:
                await self._inputs.remove()

    async def _look_at(self, batch: Batch) -> None:
        if batch.upstream_id is None:
            await self._look_for(batch)
            return
        said = await self._keepers.look_at(batch.provider, batch.upstream_id)
        if said != batch.said:
            await self._batches.heard(batch.batch_id, batch.upstream_id, said)
        found = await self._batches.find(batch.org_id, batch.mode, batch.batch_id)
        if found is not None and found.is_over:
            await self._settle(found)

    async def _look_for(self, batch: Batch) -> None:
        """What was being begun when its process died, or its answer was lost."""
        if self._now() < batch.created_at + LOST_AFTER:
            return
        said = await self._keepers.find(batch.provider, batch.batch_id)
        upstream_id = None if said is None else id_in(said, "id")
        if said is None or upstream_id is None:
            await self._end(batch, ())
        else:
            await self._batches.heard(batch.batch_id, upstream_id, said)

    async def _settle(self, batch: Batch) -> None:
        prices = await self._prices.newest()
        place = 0
        files = []
        for file_id in _files_of(batch):
            place = await self._settle_file(batch, file_id, place, prices)
            files.append(await self._kept(batch, file_id))
        await self._end(batch, files)

    async def _settle_file(self, batch: Batch, file_id: ObjectId, place: int, prices: PriceBook) -> int:
        """Post the lines of a file. Places go on from that of the last line of the file before."""
        waiting: list[tuple[int, bytes]] = []
        waiting_bytes = 0
        async with self._keepers.lines(batch.provider, file_id, line_bytes_max=ANSWERED_BYTES_MAX) as lines:
            async for raw in lines:
                place += 1
                waiting.append((place, raw))
                waiting_bytes += len(raw)
                if len(waiting) == LINES_AT_ONCE or waiting_bytes > BYTES_AT_ONCE:
                    await self._post(batch, waiting, prices)
                    waiting, waiting_bytes = [], 0
        if waiting:
            await self._post(batch, waiting, prices)
        return place

    async def _post(self, batch: Batch, raw: Sequence[tuple[int, bytes]], prices: PriceBook) -> None:
        # In threads: what an answer costs is asked of this process while the answer waits.
        answers = await asyncio.to_thread(lambda: [(place, content, parse_answer(content)) for place, content in raw])
        named = [answer.custom_id for _, _, answer in answers if answer is not None]
        remembered = await self._batches.lines(batch.batch_id, named)
        postings, quarantined = await asyncio.to_thread(rate_answers, batch, answers, remembered, prices)
        aside = await self._batches.settle(batch, list(remembered.values()), postings, quarantined)
        self._quarantined.inc(len(aside))
        if aside:
            reasons = sorted({item.reason for item in aside})[:10]
            self._log.error("quarantined", batch_id=batch.batch_id, reasons=reasons)

    async def _kept(self, batch: Batch, file_id: ObjectId) -> Kept:
        """A file of answers, as what it is from now on: its owner's."""
        said = await self._keepers.describe(batch.provider, file_id)
        return Kept(
            KeptName(KeptKind.FILE, file_id),
            batch.mode,
            batch.org_id,
            batch.project_id,
            batch.key_id,
            batch.provider,
            self._now(),
            moment_of(said.get("expires_at")),
            json.dumps(said),
            length_of(said),
        )

    async def _end(self, batch: Batch, files: Sequence[Kept]) -> None:
        conflicts = await self._batches.end(batch, end_of(batch), files, self._now())
        if conflicts:
            self._log.error("kept_conflict", batch_id=batch.batch_id, org_id=batch.org_id)
        status = (batch.said or {}).get("status", "lost")
        self._ended.labels(status).inc()
        self._log.info("batch_ended", batch_id=batch.batch_id, status=status)


def _files_of(batch: Batch) -> Sequence[ObjectId]:
    found = (id_in(batch.said or {}, name) for name in ("output_file_id", "error_file_id"))
    return [file_id for file_id in found if file_id is not None]
