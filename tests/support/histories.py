"""Random histories on a database of their own: what hypothesis needs around a machine that asks Postgres."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.databases import fresh_database

T = TypeVar("T")


class PostgresMachine(RuleBasedStateMachine):
    """A machine with a fresh database for each history. Rules are not asynchronous, so steps are `run`."""

    loop: asyncio.AbstractEventLoop
    dsn: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.context = fresh_database(self.dsn())
        self.pool = self.run(self._connect())

    async def _connect(self) -> asyncpg.Pool:
        return await asyncpg.create_pool(await self.context.__aenter__(), min_size=1, max_size=2)

    def run(self, step: Awaitable[T]) -> T:
        """What a step comes to."""

        async def take() -> T:
            return await step

        return self.loop.run_until_complete(take())

    def teardown(self) -> None:
        """Drop the database."""

        async def close() -> None:
            await self.pool.close()
            await self.context.__aexit__(None, None, None)

        self.run(close())


def run_histories(machine: type[PostgresMachine], server_dsn: str, *, examples: int, steps: int) -> None:
    """Run so many histories of so many steps."""
    loop = asyncio.new_event_loop()
    on_server = type(machine.__name__, (machine,), {"loop": loop, "dsn": staticmethod(lambda: server_dsn)})
    try:
        run_state_machine_as_test(
            on_server,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        loop.close()
