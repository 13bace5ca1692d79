"""Admission on the warm path asks Postgres nothing: Postgres's own log of statements says so."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from ext_authz.app import HEARTBEAT_S, USES_S
from gateway_core.contract import Service
from tests.support.stack import Stack, eventually

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello. [[sim output_tokens=5]]"}]}
REQUESTS = 200
AT_ONCE = 8
BALANCE = "10000"
"""So much that the worst cases of all of them together are not half of a slice."""
STATEMENT = re.compile(r"\[(\d+)\] LOG:  (?:statement|execute \S+): (.*(?:\n\t.*)*)")
EVERY_S = {"report_authorizer": HEARTBEAT_S, "live_authorizers": HEARTBEAT_S, "touch_keys": USES_S, "SELECT 1": USES_S}
"""What ext_authz says and asks by the clock: that it runs, how many do, which keys were used, and whether the listening connection is there."""
OF_THE_DRIVER = ("SELECT pg_advisory_unlock_all()", "WITH RECURSIVE typeinfo_tree(", "set_config('jit'")
"""What asyncpg does around a statement: with the first a connection goes back to the pool; the others look up types, once for each connection."""


@asynccontextmanager
async def asked_by_ext_authz(stack: Stack) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Postgres writes every statement down while the block runs; yields what tells those of ext_authz since it was last asked."""
    numbers = itertools.count()
    read_to = len(stack.log("postgres"))

    async def asked() -> list[str]:
        nonlocal read_to
        fence = f"SELECT 'fence {next(numbers)}'"
        pids = await database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, $1)", Service.EXT_AUTHZ
        )
        await database.execute(fence)

        async def is_written() -> bool:
            return fence in stack.log("postgres")[read_to:]

        await eventually(is_written)
        written = stack.log("postgres")[read_to:]
        read_to += len(written)
        of_it = {str(row["pid"]) for row in pids}
        return [statement for pid, statement in STATEMENT.findall(written) if pid in of_it]

    async with stack.database() as database:
        await database.execute("ALTER SYSTEM SET log_statement = 'all'")
        try:
            await database.execute("SELECT pg_reload_conf()")

            async def heartbeat_is_written() -> bool:
                return "accounts.report_authorizer" in stack.log("postgres")[read_to:]

            await eventually(heartbeat_is_written)
            yield asked
        finally:
            await database.execute("ALTER SYSTEM RESET log_statement")
            await database.execute("SELECT pg_reload_conf()")


async def test_two_hundred_warm_requests_ask_postgres_nothing(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {await stack.make_key('warm', balance=BALANCE)}"}
    places = asyncio.Semaphore(AT_ONCE)

    async def ask() -> None:
        async with places, session.post(f"{stack.url}/v1/chat/completions", json=BODY, headers=headers) as response:
            assert response.status == 200, await response.text()

    async with aiohttp.ClientSession() as session, asked_by_ext_authz(stack) as asked:
        await asked()
        await ask()
        cold = "\n".join(await asked())
        assert "accounts.find_key" in cold
        assert "billing.open_slice" in cold

        begun_s = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(REQUESTS)))
        warm = await asked()
        took_s = time.monotonic() - begun_s

    ours = (statement for statement in warm if not any(part in statement for part in OF_THE_DRIVER))
    seen = Counter(next((name for name in EVERY_S if name in statement), statement) for statement in ours)
    assert seen.keys() <= EVERY_S.keys()
    # One more may have been due as they began.
    assert all(count <= took_s / EVERY_S[name] + 1 for name, count in seen.items()), (seen, took_s)
