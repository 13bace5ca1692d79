"""`python -m bench.edit_to_ack`: how long an edit of the catalogue takes until Envoy has accepted it.

Measured on a stack of its own, from the commit of the edit in Postgres (a new model with a price) to the ACK of the last
type, as `/api/v1/nodes` reports it, with more and more models in the catalogue. The clock of one machine is on both sides.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench.processes import tollgate_up

EDITS = 10
DEADLINE_S = 30.0


async def add_models(database: asyncpg.Connection, prefix: str, count: int) -> datetime:
    """New models of the demo's OpenAI provider, in one transaction; the moment after its commit."""
    names = [f"{prefix}-{number}" for number in range(count)]
    async with database.transaction():
        await database.executemany(
            "INSERT INTO catalog.models VALUES ($1, 'bench', 1000, 1000)", [(name,) for name in names]
        )
        await database.executemany(
            "INSERT INTO catalog.deployments VALUES ($1, 'openai', 'x')", [(name,) for name in names]
        )
        await database.executemany(
            "INSERT INTO catalog.routes (name, match) VALUES ($1, $1)", [(name,) for name in names]
        )
        await database.executemany(
            "INSERT INTO catalog.route_members VALUES ($1, 'openai')", [(name,) for name in names]
        )
        await database.executemany(
            "INSERT INTO catalog.prices VALUES ($1, 'openai', 0, 'input', 1, 1)", [(name,) for name in names]
        )
    return datetime.now(tz=UTC)


async def accepted(session: aiohttp.ClientSession, nodes_url: str) -> Mapping[str, Any]:
    """What the one node has accepted of its routes: version and moment."""
    async with session.get(nodes_url) as response:
        (node,) = (await response.json())["data"]
    routes: Mapping[str, Any] = node["types"]["RouteConfiguration"]
    return routes


async def edit_ms(database: asyncpg.Connection, session: aiohttp.ClientSession, nodes_url: str, name: str) -> float:
    """Make one edit; milliseconds from its commit to the ACK."""
    before = (await accepted(session, nodes_url))["accepted_version"]
    committed = await add_models(database, name, 1)
    async with asyncio.timeout(DEADLINE_S):
        while (routes := await accepted(session, nodes_url))["accepted_version"] == before:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
    return (datetime.fromisoformat(routes["accepted_at"]) - committed).total_seconds() * 1000


async def run(sizes: list[int]) -> None:
    """Grow the catalogue, measure at each size, print."""
    table = Table(title="From the commit of an edit to Envoy's ACK", title_justify="left")
    for column in ("models", "median ms", "slowest ms"):
        table.add_column(column, justify="right")
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        stack = await running.enter_async_context(tollgate_up(directory / "stack"))
        database = await asyncpg.connect(stack.postgres_dsn)
        running.push_async_callback(database.close)
        headers = {"Authorization": f"Bearer {stack.operator_token}"}
        session = await running.enter_async_context(aiohttp.ClientSession(headers=headers))
        nodes_url = f"{stack.control_plane_url}/api/v1/nodes"
        models = 0
        for size in sizes:
            before = (await accepted(session, nodes_url))["accepted_version"]
            await add_models(database, f"fill-{size}", size - models)
            models = size
            async with asyncio.timeout(DEADLINE_S):
                while (await accepted(session, nodes_url))["accepted_version"] == before:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.05)
            found = [await edit_ms(database, session, nodes_url, f"edit-{size}-{n}") for n in range(EDITS)]
            table.add_row(str(size), f"{statistics.median(found):.0f}", f"{max(found):.0f}")
    Console().print(table)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.edit_to_ack", description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 100, 500, 2000], help="default: 10 100 500 2000")
    asyncio.run(run(parser.parse_args().models))


if __name__ == "__main__":
    main()
