"""Which of several sinks on one spool works: the one whose connection holds the spool's lock in Postgres.

It posts over that connection and no other. So the claim cannot be lost without the means to post, and Postgres does not
give it to the next sink before the last statement of this one has ended.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NewType

import asyncpg
from pydantic import SecretStr

from billing_sink.spool import SpoolId
from gateway_core.clock import Monotonic
from gateway_core.contract import Service
from gateway_core.postgres import STATEMENT_TIMEOUT_S, server_settings

Turn = NewType("Turn", int)
"""Tells one holding of a claim from the next: in between another sink may have read on."""

ASK_S: Final = 0.25
"""How often a sink that stands by asks for the claim, and the one that holds it shows that it is alive."""

SILENCE: Final = "5s"
"""After this Postgres hangs up: a sink that is stopped, or whose machine is gone, holds nothing."""

_CONNECT_S: Final = 5.0

_PLANNER: Final = {"random_page_cost": "1.1", "jit": "off"}
"""The pages that a batch touches are in memory, so rows of the ledger are found by key rather than by reading whole tables."""

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class ClaimLostError(ConnectionError):
    """Another sink may be at work on the spool by now; nothing may be posted."""


async def connect(dsn: SecretStr) -> asyncpg.Connection:
    """A connection that can hold a claim.

    Raises:
        OSError, asyncpg.PostgresError: the server cannot be reached or refuses.
    """
    return await asyncpg.connect(
        dsn.get_secret_value(),
        timeout=_CONNECT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        server_settings={
            **server_settings(Service.BILLING_SINK, part="claim"),
            "idle_session_timeout": SILENCE,
            "idle_in_transaction_session_timeout": SILENCE,
            **_PLANNER,
        },
    )


class SpoolClaim:
    """The claim of this process to one spool at a time. Its spool is told by content, wherever it is mounted."""

    def __init__(self, connect: Connect, monotonic: Monotonic) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._connection: asyncpg.Connection | None = None
        self._spool: SpoolId | None = None
        self._turn = Turn(0)
        self._asked: SpoolId | None = None
        self._asked_s = -math.inf
        self._statement = asyncio.Lock()

    @property
    def is_held(self) -> bool:
        """Whether it was held when Postgres was last heard of."""
        return self._spool is not None and self._connection is not None and not self._connection.is_closed()

    async def take(self, spool: SpoolId) -> Turn | None:
        """The turn of this process at a spool, None while it is another's. About one spool, Postgres is asked every `ASK_S`.

        Raises:
            OSError, asyncpg.PostgresError: nobody knows; ask again.
        """
        if spool != self._asked or self._monotonic() >= self._asked_s + ASK_S:
            async with self._statement:
                self._asked, self._asked_s = spool, self._monotonic()
                await self._ask(spool)
        return self._turn if self.is_held and self._spool == spool else None

    async def _ask(self, spool: SpoolId) -> None:
        if self._connection is None or self._connection.is_closed():
            self._spool = None
            self._connection = await self._connect()
        if self._spool == spool:
            await self._connection.execute("SELECT 1")
            return
        if self._spool is not None:
            self._spool = None
            await self._connection.execute("SELECT pg_advisory_unlock_all()")
        # Not waited for: a statement that waits for days keeps Postgres from cleaning up for as long.
        if await self._connection.fetchval(
            "SELECT pg_try_advisory_lock(hashtextextended('tollgate.spool.' || $1, 0))", spool
        ):
            self._spool, self._turn = spool, Turn(self._turn + 1)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection, for one user at a time.

        Raises:
            ClaimLostError: there is none that holds the claim.
        """
        async with self._statement:
            if self._connection is None or not self.is_held:
                raise ClaimLostError("the spool is another sink's")
            yield self._connection

    async def close(self) -> None:
        """Let another sink have the spool."""
        if self._connection is not None:
            await self._connection.close(timeout=_CONNECT_S)
