"""`python -m bench.edit_to_applied`: how long an operator's edit takes until it is applied: accepted by every Envoy, served by every ext_authz.

Measured on a stack of its own, with more and more models in the catalogue: from sending a PUT of a route, or a pause of the
provider that is the first of all of them, to the answer that its operation is applied, which is what an operator waits for. The
API, Postgres, the translation, discovery and Envoy's ACK are all in it.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from tests.support.stack import running_stack

EDITS = 10
WAIT_MS = 20_000
SPARE = "spare"
"""The second provider of every model."""


async def add_models(database: asyncpg.Connection, offers: Sequence[tuple[str, str]]) -> None:
    """New models, each with a provider, in one transaction."""
    async with database.transaction():
        for statement in (
            "INSERT INTO catalog.models SELECT $1, 'bench', 100000, 1000 WHERE $2 <> 'spare'",
            "INSERT INTO catalog.deployments VALUES ($1, $2, 'mock-0')",
            "INSERT INTO catalog.prices VALUES ($1, $2, 0, 'input', 1, 1), ($1, $2, 0, 'output', 1, 1)",
            "INSERT INTO catalog.routes (name, match) SELECT $1, $1 WHERE $2 <> 'spare'",
            "INSERT INTO catalog.route_members VALUES ($1, $2, ($2 = 'spare')::int)",
        ):
            await database.executemany(statement, offers)


async def edit_ms(session: aiohttp.ClientSession, model: str, timeout_ms: int) -> float:
    """Give a route another time-out; milliseconds until every Envoy has accepted it."""
    groups = [[{"provider": "openai"}], [{"provider": SPARE}]]
    body = {"match": model, "groups": groups, "first_byte_timeout_ms": timeout_ms}
    return await applied_ms(session, session.put(f"routes/{model}", json=body, headers={"If-Match": "*"}))


async def applied_ms(session: aiohttp.ClientSession, edit: Any) -> float:
    """Milliseconds until every Envoy has accepted an edit."""
    began = perf_counter()
    operation = await _json(edit)
    path = f"operations/{operation['id']}"
    ended = await _json(session.get(path, params={"wait_ms": WAIT_MS}))
    assert (ended["state"], ended["nodes"]) == ("applied", 1), ended
    return (perf_counter() - began) * 1000


async def pause_ms(session: aiohttp.ClientSession, provider: str) -> float:
    """Pause a provider, and have it back; milliseconds of the former."""
    paused, _ = [
        await applied_ms(session, session.post(f"providers/{provider}/{verb}", json={"reason": "measured"}))
        for verb in ("pause", "resume")
    ]
    return paused


async def _json(call: Any) -> Any:
    async with call as response:
        response.raise_for_status()
        return await response.json()


async def run(sizes: list[int]) -> None:
    """Grow the catalogue, measure at each size, print."""
    table = Table(title="From an edit to applied everywhere", title_justify="left")
    for column in ("models", "edit: median ms", "slowest ms", "pause: first ms", "second ms"):
        table.add_column(column, justify="right")
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        stack = await running.enter_async_context(running_stack(directory / "stack"))
        database = await running.enter_async_context(stack.database())
        session = await running.enter_async_context(
            aiohttp.ClientSession(
                f"{stack.endpoints['control_plane_url']}/api/v1/",
                headers={"Authorization": f"Bearer {stack.endpoints['operator_token']}"},
            )
        )
        base_url = f"{stack.simulator_url}/v1"
        spare = {"kind": "openai", "base_url": base_url, "credential": "sk-spare"}
        await applied_ms(session, session.put(f"providers/{SPARE}", json=spare))
        models = 0
        for size in sizes:
            names = [f"bench-{size}-{number}" for number in range(size - models)]
            await add_models(database, [(name, provider) for name in names for provider in ("openai", SPARE)])
            models = size
            # The first edit waits until the new models are there as well.
            await edit_ms(session, f"bench-{size}-0", 1000)
            found = [await edit_ms(session, f"bench-{size}-0", 2000 + number) for number in range(EDITS)]
            pauses = [await pause_ms(session, "openai") for _ in range(2)]
            table.add_row(str(size), *(f"{each:.0f}" for each in (statistics.median(found), max(found), *pauses)))
    Console().print(table)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.edit_to_applied", description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 100, 500, 2000], help="default: 10 100 500 2000")
    asyncio.run(run(parser.parse_args().models))


if __name__ == "__main__":
    main()
