"""A batch from what a client asks to the provider that has begun it: read, held for, written down, and only then sent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from billing_sink.batches.admission import AdmittedLine, Assortment, RefusedLineError, admit, total
from billing_sink.batches.keepers import ASKED_BYTES_MAX, KeeperError, Keepers
from billing_sink.batches.line_reader import InvalidBatchLineError, LineReader
from billing_sink.batches.model import HOLD_TTL, Batch, BatchRefusedError, id_in
from billing_sink.batches.outcomes import end_of, remembered
from billing_sink.batches.postgres_batches import NotHeldError, PostgresBatches
from billing_sink.current_prices import CurrentPrices
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
from gateway_core.ids import OrgId, ProviderName, RandomBytes, new_id
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.logs import Logger

AT_ONCE_MAX: Final = 2
"""Batches that are read at once, of different organisations: each has its whole input in memory."""
READ_S_MAX: Final = 120
"""For reading an input: a file that takes longer is made to take long."""
OPEN_MAX: Final = 100
"""Of one organisation: each has a row for every line. Two that are begun at once may both be the last one."""
LINES_MAX: Final = 50_000
BYTES_MAX: Final = 200_000_000
"""OpenAI's own bounds."""


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


class Assortments(Protocol):
    """Where it stands what can be had."""

    async def read(self, provider: ProviderName | None) -> Assortment:
        """At one provider; at all of them for the simulator.

        Raises:
            asyncpg.PostgresError, OSError: it cannot be read now.
        """


class Creation:
    """Begins batches."""

    def __init__(
        self,
        batches: PostgresBatches,
        keepers: Keepers,
        assortments: Assortments,
        prices: CurrentPrices,
        *,
        now: Now,
        random_bytes: RandomBytes,
        log: Logger,
    ) -> None:
        self._batches = batches
        self._keepers = keepers
        self._assortments = assortments
        self._prices = prices
        self._now = now
        self._random_bytes = random_bytes
        self._log = log
        self._begun_for: set[OrgId] = set()

    async def begin(self, wish: Wish, key: ApiKey) -> Batch:
        """Begin a batch for who has the key.

        Raises:
            BatchRefusedError: why not.
            asyncpg.PostgresError, OSError: nothing was begun.
        """
        if len(self._begun_for) == AT_ONCE_MAX or key.org_id in self._begun_for:
            raise BatchRefusedError(BATCHES_BUSY)
        self._begun_for.add(key.org_id)
        try:
            return await self._begin(wish, key)
        finally:
            self._begun_for.remove(key.org_id)

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
        prices = await self._prices.newest()
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
        assortment = await self._assortments.read(batch.provider)
        reader = LineReader(batch.endpoint)

        def read(raw: bytes) -> AdmittedLine:
            return admit(reader.read(raw), batch.endpoint, key, assortment, prices)

        admitted: list[AdmittedLine] = []
        names: set[str] = set()
        content: list[bytes] = []
        read_bytes = 0
        try:
            async with (
                asyncio.timeout(READ_S_MAX),
                self._keepers.lines(batch.provider, batch.input_file_id, line_bytes_max=ASKED_BYTES_MAX) as lines,
            ):
                async for raw in lines:
                    number = len(admitted) + 1
                    read_bytes += len(raw)
                    if number > LINES_MAX or read_bytes > BYTES_MAX:
                        raise BatchRefusedError(
                            invalid_batch(f"A batch has {LINES_MAX:,} lines and {BYTES_MAX:,} bytes at most.")
                        )
                    try:
                        # In a thread: one line may hold this process up for a second.
                        line = await asyncio.to_thread(read, raw)
                    except (InvalidBatchLineError, RefusedLineError) as error:
                        raise BatchRefusedError(invalid_batch_line(number, error.error)) from error
                    if line.line.custom_id in names:
                        raise BatchRefusedError(invalid_batch(f"Line {number}: another line has the same 'custom_id'."))
                    names.add(line.line.custom_id)
                    admitted.append(line)
                    content.append(line.line.rewritten(line.sold.upstream_model))
        except KeeperError as error:
            raise BatchRefusedError(KEEPER_PAUSED if error.is_paused else INPUT_UNREADABLE) from error
        except TimeoutError as error:
            raise BatchRefusedError(INPUT_UNREADABLE) from error
        if not admitted:
            raise BatchRefusedError(invalid_batch("The file has no lines."))
        return Input(tuple(admitted), b"".join(content))

    async def _send(self, batch: Batch, content: bytes) -> Batch:
        """Have the provider begin. What is not known to have failed is looked for later, by our id in it."""
        try:
            file_id = await self._keepers.upload(batch.provider, content, batch.batch_id)
        except KeeperError as error:
            raise BatchRefusedError(await self._give_up(batch, error)) from error
        if not await self._batches.sent(batch.batch_id, file_id):
            raise BatchRefusedError(BATCH_NOT_BEGUN)
        try:
            said = await self._keepers.create(batch.provider, file_id, batch.endpoint, batch.batch_id)
        except KeeperError as error:
            if error.is_refusal or error.is_paused:
                raise BatchRefusedError(await self._give_up(batch, error)) from error
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


def _not_held(error: NotHeldError) -> ApiError:
    if error.budget is None:
        return INSUFFICIENT_QUOTA
    return budget_held(error.budget) if isinstance(error.budget, AllHeld) else budget_exceeded(error.budget)
