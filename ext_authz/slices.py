"""Money that is set aside for many requests at once, and spent here without a question to Postgres.

A slice is a small part of what is free in a balance. Where that is too little to cover several requests like the one that asks,
there are no slices, and each request has a hold of its own. What is not spent in time goes back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from gateway_core.clock import Monotonic
from gateway_core.ids import OrgId, SliceId
from gateway_core.logs import Logger
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.postgres import Trouble

REQUESTS_MIN: Final = 8
"""A slice that covers fewer requests than this saves nothing worth its price."""

SPEND_S: Final = 120.0
"""How long a slice is spent from; then the rest of it goes back."""

RENEW_BELOW: Final = 0.5
"""The next slice is opened when less than this part is left, of the money or of the time: a Postgres that is away for a
while is not noticed."""

NO_SLICE_S: Final = 1.0
"""How long it is not asked again after there was too little money."""

LEASE_PART: Final = 4
"""A lease takes no more than the fourth part of what is left of a slice, so that no key has all of it."""

RETURNS_MAX: Final = 10_000
"""What waits to be given back. Beyond that it goes back by itself when the slices' time is over."""


class Payer(NamedTuple):
    """Whose money, and real or play money."""

    org_id: OrgId
    mode: Mode


class Taken(NamedTuple):
    """Money for so many requests, of a slice."""

    slice: "Slice"
    uses: int


class SliceStore(Protocol):
    """Where slices are cut."""

    async def open(
        self, slice_id: SliceId, payer: Payer, *, amount_min: NanoUsd, spend_for: timedelta
    ) -> NanoUsd | None:
        """Set a slice aside; returns its size, or None if it would be smaller than that.

        Raises:
            asyncpg.PostgresError, OSError: nobody knows. A slice of which nobody knows is given back when its time is over.
        """

    async def give_back(self, slice_id: SliceId, unspent: NanoUsd) -> None:
        """Give back what was not spent: so much in all, however often it is said.

        Raises:
            asyncpg.PostgresError, OSError: not now.
        """


@dataclass(slots=True)
class Slice:
    """What was set aside, and what is left of it, in nano-USD."""

    slice_id: SliceId
    payer: Payer
    size: int
    rest: int
    opened_s: float

    def covers(self, amount: int, now_s: float) -> bool:
        """Whether an amount can be taken from it now."""
        return self.rest >= amount and now_s < self.opened_s + SPEND_S

    def is_low(self, now_s: float) -> bool:
        """Whether the next one should be opened."""
        return self.rest < self.size * RENEW_BELOW or now_s > self.opened_s + SPEND_S * (1 - RENEW_BELOW)


@dataclass(slots=True)
class _Pocket:
    """What there is of a payer here."""

    slice: Slice | None = None
    opening: "asyncio.Task[None] | None" = None
    no_slice_until_s: float = float("-inf")


class Slices:
    """One slice per payer. Who spends nothing is forgotten when the slice's time is over."""

    def __init__(
        self, store: SliceStore, *, new_slice_id: Callable[[], SliceId], monotonic: Monotonic, log: Logger
    ) -> None:
        self._store = store
        self._new_slice_id = new_slice_id
        self._monotonic = monotonic
        self._log = log
        self._pockets: dict[Payer, _Pocket] = {}
        self._returns: asyncio.Queue[Slice] = asyncio.Queue(RETURNS_MAX)

    async def take(self, payer: Payer, amount: NanoUsd, *, uses_max: int = 1) -> Taken | None:
        """Spend an amount for each of several requests, or of fewer, but of one; None if there is no slice to spend it from.

        Waits for Postgres only if there is no slice yet.
        """
        pocket = self._pockets.get(payer)
        if pocket is None:
            pocket = self._pockets[payer] = _Pocket()
        if (taken := self._spend(payer, pocket, amount, uses_max)) is not None:
            return taken
        if self._monotonic() < pocket.no_slice_until_s:
            return None
        self._renew(payer, pocket, amount)
        if pocket.opening is not None:
            await asyncio.shield(pocket.opening)
        return self._spend(payer, pocket, amount, uses_max)

    def put_in(self, found: Slice, amount: NanoUsd) -> None:
        """Put back what was taken for requests that have not come. Of a slice that is not spent from any more it goes on to the balance."""
        found.rest += amount
        pocket = self._pockets.get(found.payer)
        if pocket is None or pocket.slice is not found:
            self._put_back(found)

    def _spend(self, payer: Payer, pocket: _Pocket, amount: int, uses_max: int) -> Taken | None:
        now_s, current = self._monotonic(), pocket.slice
        if current is None or not current.covers(amount, now_s):
            return None
        uses = max(1, min(uses_max, current.rest // (amount * LEASE_PART))) if amount else uses_max
        current.rest -= amount * uses
        if current.is_low(now_s) and now_s >= pocket.no_slice_until_s:
            self._renew(payer, pocket, amount)
        return Taken(current, uses)

    def _renew(self, payer: Payer, pocket: _Pocket, amount: int) -> None:
        """Begin to open the next slice, in a task that the pocket owns; there is one at a time."""
        if pocket.opening is None or pocket.opening.done():
            pocket.opening = asyncio.create_task(self._open(payer, pocket, amount), name="open_slice")

    async def _open(self, payer: Payer, pocket: _Pocket, amount: int) -> None:
        slice_id = self._new_slice_id()
        try:
            size = await self._store.open(
                slice_id,
                payer,
                amount_min=NanoUsd(max(1, amount) * REQUESTS_MIN),
                spend_for=timedelta(seconds=SPEND_S),
            )
        except Trouble as error:
            self._log.warning("slice_not_opened", error=type(error).__name__)
            pocket.no_slice_until_s = self._monotonic() + NO_SLICE_S
            return
        before, pocket.slice = pocket.slice, None
        if size is not None:
            pocket.slice = Slice(slice_id, payer, size, size, self._monotonic())
            if before is not None:
                self._put_back(before)
            return
        # The money comes to its end: what is left of a slice belongs to holds again, and before the next of them is asked for.
        pocket.no_slice_until_s = self._monotonic() + NO_SLICE_S
        if before is not None and before.rest > 0:
            try:
                await self._store.give_back(before.slice_id, NanoUsd(before.rest))
            except Trouble:
                self._put_back(before)

    def _put_back(self, spent: Slice) -> None:
        if spent.rest > 0 and not self._returns.full():
            self._returns.put_nowait(spent)

    async def give_back(self) -> None:
        """Give back, for ever, what of older slices was not spent."""
        while True:
            spent = await self._returns.get()
            while True:
                try:
                    await self._store.give_back(spent.slice_id, NanoUsd(spent.rest))
                    break
                except Trouble as error:
                    self._log.warning("slice_not_returned", error=type(error).__name__)
                    await asyncio.sleep(NO_SLICE_S)

    def put_away(self) -> None:
        """Forget payers whose slice's time is over, and let go of their rest."""
        now_s = self._monotonic()
        for payer, pocket in list(self._pockets.items()):
            is_idle = pocket.opening is None or pocket.opening.done()
            if is_idle and (pocket.slice is None or now_s >= pocket.slice.opened_s + SPEND_S):
                if now_s >= pocket.no_slice_until_s:
                    del self._pockets[payer]
                if pocket.slice is not None:
                    self._put_back(pocket.slice)
                    pocket.slice = None

    async def close(self) -> None:
        """Give everything back, at the end of the process.

        Raises:
            asyncpg.PostgresError, OSError: the rest goes back when its time is over.
        """
        pockets, self._pockets = self._pockets, {}
        for pocket in pockets.values():
            if pocket.opening is not None:
                await pocket.opening
            if pocket.slice is not None:
                self._put_back(pocket.slice)
        while not self._returns.empty():
            spent = self._returns.get_nowait()
            await self._store.give_back(spent.slice_id, NanoUsd(spent.rest))
