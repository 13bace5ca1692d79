"""A batch from what a client asks to the provider that has begun it: read, held for, written down, and only then sent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from billing_sink.batches.admission import AdmittedLine, RefusedLineError, admit, total
from billing_sink.batches.keepers import KeeperError, Keepers
from billing_sink.batches.line_reader import InvalidBatchLineError, LineReader
from billing_sink.batches.model import HOLD_TTL, Batch, id_in
from billing_sink.batches.outcomes import end_of, remembered
from billing_sink.batches.postgres_assortment import read_assortment
from billing_sink.batches.postgres_batches import NotHeldError, PostgresBatches
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.prices import PriceBook
from gateway_core.api_keys import ApiKey
from gateway_core.budgets import AllHeld
from gateway_core.clock import Now
from gateway_core.endpoints import Endpoint
from gateway_core.errors import (
    BATCH_NOT_BEGUN,
    BATCH_UNKNOWN,
    BATCHES_BUSY,
    BATCHES_MAX_OPEN,
    INPUT_UNREADABLE,
    INSUFFICIENT_QUOTA,
    KEEPER_PAUSED,
    ApiError,
    budget_exceeded,
    budget_held,
    invalid_batch,
    invalid_batch_line,
    no_such,
)
from gateway_core.ids import PriceVersion, RandomBytes, new_id
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.logs import Logger

AT_ONCE_MAX: Final = 2
"""Batches that are read at once: each has its whole input in memory."""
OPEN_MAX: Final = 100
"""Of one organisation: each has a row for every line. Two that are begun at once may both be the last one."""
LINES_MAX: Final = 50_000
BYTES_MAX: Final = 200_000_000
"""OpenAI's own bounds."""


class BatchRefusedError(Exception):
    """No batch was begun, or nobody knows; the error says it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.code)
        self.error = error


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for."""

    endpoint: Endpoint
    input_file_id: ObjectId
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Input:
    """An input that was read: its lines, and what the provider is sent in its place."""

    lines: tuple[AdmittedLine, ...]
    content: bytes


class Creation:
    """Begins batches."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        batches: PostgresBatches,
        keepers: Keepers,
        *,
        now: Now,
        random_bytes: RandomBytes,
        log: Logger,
    ) -> None:
        self._pool = pool
        self._batches = batches
        self._keepers = keepers
        self._published = PostgresPrices(pool)
        self._prices = PriceBook.of(PriceVersion(0), ())
        self._now = now
        self._random_bytes = random_bytes
        self._log = log
        self._running = 0

    async def begin(self, wish: Wish, key: ApiKey) -> Batch:
        """Begin a batch for who has the key.

        Raises:
            BatchRefusedError: why not.
            asyncpg.PostgresError, OSError: nothing was begun.
        """
        if self._running == AT_ONCE_MAX:
            raise BatchRefusedError(BATCHES_BUSY)
        self._running += 1
        try:
            return await self._begin(wish, key)
        finally:
            self._running -= 1

    async def _begin(self, wish: Wish, key: ApiKey) -> Batch:
        place = await self._batches.find_input(key.org_id, key.mode, wish.input_file_id)
        if place is None:
            raise BatchRefusedError(no_such(KeptName(KeptKind.FILE, wish.input_file_id)))
        if await self._batches.count_open(key.org_id, key.mode) >= OPEN_MAX:
            raise BatchRefusedError(BATCHES_MAX_OPEN)
        batch = Batch(
            ObjectId(new_id("batch", self._random_bytes)),
            key.mode,
            key.org_id,
            key.project_id,
            key.key_id,
            place.provider,
            wish.endpoint,
            wish.input_file_id,
            wish.metadata,
            self._now(),
        )
        self._prices = prices = await self._published.read(self._prices)
        read = await self._read(batch, key, prices)
        # In a thread: what an answer costs is asked of this process while the answer waits.
        lines = await asyncio.to_thread(
            lambda: [remembered(number, line, batch, prices.as_of) for number, line in enumerate(read.lines, start=1)]
        )
        try:
            await self._batches.begin(batch, key, total(read.lines), lines, expires_at=batch.created_at + HOLD_TTL)
        except NotHeldError as error:
            raise BatchRefusedError(_not_held(error)) from error
        self._log.info("batch_held_for", batch_id=batch.batch_id, lines=len(lines))
        return await self._send(batch, read.content)

    async def _read(self, batch: Batch, key: ApiKey, prices: PriceBook) -> Input:
        assortment = await read_assortment(self._pool, batch.provider)
        reader = LineReader(batch.endpoint)
        admitted: list[AdmittedLine] = []
        names: set[str] = set()
        content: list[bytes] = []
        read_bytes = 0
        try:
            async with self._keepers.lines(batch.provider, batch.input_file_id) as lines:
                async for raw in lines:
                    number = len(admitted) + 1
                    read_bytes += len(raw)
                    if number > LINES_MAX or read_bytes > BYTES_MAX:
                        raise BatchRefusedError(
                            invalid_batch(f"A batch has {LINES_MAX:,} lines and {BYTES_MAX:,} bytes at most.")
                        )
                    try:
                        line = admit(reader.read(raw), batch.endpoint, key, assortment, prices)
                    except (InvalidBatchLineError, RefusedLineError) as error:
                        raise BatchRefusedError(invalid_batch_line(number, error.error)) from error
                    if line.line.custom_id in names:
                        raise BatchRefusedError(invalid_batch(f"Line {number}: another line has the same 'custom_id'."))
                    names.add(line.line.custom_id)
                    admitted.append(line)
                    content.append(line.line.rewritten(line.sold.upstream_model))
        except KeeperError as error:
            raise BatchRefusedError(KEEPER_PAUSED if error.is_paused else INPUT_UNREADABLE) from error
        if not admitted:
            raise BatchRefusedError(invalid_batch("The file has no lines."))
        return Input(tuple(admitted), b"".join(content))

    async def _send(self, batch: Batch, content: bytes) -> Batch:
        """Have the provider begin. What is not known to have failed is looked for later, by our id in it."""
        try:
            file_id = await self._keepers.upload(batch.provider, content)
        except KeeperError as error:
            raise BatchRefusedError(await self._give_up(batch, error)) from error
        try:
            said = await self._keepers.create(batch.provider, file_id, batch.endpoint, batch.batch_id)
        except KeeperError as error:
            if error.is_refusal or error.is_paused:
                refusal = await self._give_up(batch, error)
                await self._forget(batch, file_id)
                raise BatchRefusedError(refusal) from error
            self._log.warning("batch_unknown", batch_id=batch.batch_id, status=error.status)
            raise BatchRefusedError(BATCH_UNKNOWN) from error
        upstream_id = id_in(said, "id")
        if upstream_id is None:
            raise BatchRefusedError(BATCH_UNKNOWN)
        await self._batches.heard(batch.batch_id, upstream_id, said)
        found = await self._batches.find(batch.org_id, batch.mode, batch.batch_id)
        assert found is not None  # noqa: S101 - it was written above, and batches are never removed
        return found

    async def _give_up(self, batch: Batch, error: KeeperError) -> ApiError:
        self._log.warning("batch_not_begun", batch_id=batch.batch_id, status=error.status)
        await self._batches.end(batch, end_of(batch), (), self._now())
        return KEEPER_PAUSED if error.is_paused else BATCH_NOT_BEGUN

    async def _forget(self, batch: Batch, file_id: ObjectId) -> None:
        """What the provider was sent, and will not use."""
        try:
            await self._keepers.delete(batch.provider, file_id)
        except KeeperError as error:
            self._log.warning("batch_input_left", batch_id=batch.batch_id, status=error.status)


def _not_held(error: NotHeldError) -> ApiError:
    if error.budget is None:
        return INSUFFICIENT_QUOTA
    return budget_held(error.budget) if isinstance(error.budget, AllHeld) else budget_exceeded(error.budget)
