"""The whole gateway as a newcomer starts it: `tollgate up` in a directory of its own, and what tests ask of it."""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import clickhouse_connect
from pydantic import SecretStr

from control_plane.catalog.price_specs import UNITS_BY_METER
from control_plane.sealing import Seal, provider_credential
from gateway_core.api_keys import PREFIX_BY_MODE, hash_key, new_key
from gateway_core.ids import ProviderName
from gateway_core.mode import Mode
from gateway_core.money import parse_usd
from gateway_core.usage import Meter
from local_stack import running
from local_stack.data_directory import DataDirectory
from local_stack.envoy import running_envoy

SETTLE_DEADLINE_S = 15
CONTEXT_TOKENS = 10_000_000
"""Of the tests' own models: no body of a test has more, so what the simulator counts is never beyond the hold."""

MTOK_NANO_USD = 1_000_000
"""What a million of anything costs, unless told otherwise: a nano-USD each."""

FLUSHED_S = 0.4
"""Longer than Envoy keeps a line of its access log in memory (`--file-flush-interval-msec`)."""

T = TypeVar("T")


class Quiet(NamedTuple):
    """A spool that has been read to its end, and since when it has not grown."""

    size: int
    since_s: float


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    data_dir: Path
    simulator_url: str

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """What the stack says of itself, now."""
        found: dict[str, Any] = json.loads((self.data_dir / "endpoints.json").read_text())
        return found

    @property
    def ports(self) -> Mapping[str, int]:
        """Where each server listens."""
        found: dict[str, int] = json.loads((self.data_dir / "ports.json").read_text())
        return found

    @property
    def url(self) -> str:
        """The gateway, without a path."""
        return str(self.endpoints["anthropic_base_url"])

    @property
    def headers(self) -> dict[str, str]:
        """The demo key as a header."""
        return {"Authorization": f"Bearer {self.endpoints['api_key']}"}

    def secret(self, name: str) -> str:
        """One of the stack's secrets."""
        return (self.data_dir / "secrets" / name).read_text().strip()

    def kill(self, service: str) -> int:
        """kill -9; returns the pid that is gone."""
        pid = int(self.endpoints["pids"][service])
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def supervisor(self) -> int:
        """The pid of `tollgate up`."""
        pid = DataDirectory.at(self.data_dir).holder()
        assert pid is not None
        return pid

    def log(self, service: str) -> str:
        """Everything a service has logged."""
        return (self.data_dir / "logs" / f"{service}.log").read_text(errors="replace")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the stack's Postgres."""
        connection = await asyncpg.connect(self.endpoints["postgres_dsn"])
        try:
            yield connection
        finally:
            await connection.close()

    async def make_key(self, name: str, *, balance: str, mode: Mode = Mode.LIVE) -> str:
        """An organisation `org_<name>` with a balance in USD and the key `key_<name>`; returns the key."""
        key = new_key(PREFIX_BY_MODE[mode], secrets.token_bytes).get_secret_value()
        key_hash = hash_key(key, SecretStr(self.secret("tollgate_api_key_pepper")))
        org_id, project_id = f"org_{name}", f"prj_{name}"
        async with self.database() as connection, connection.transaction():
            await connection.execute("INSERT INTO accounts.organizations (org_id, name) VALUES ($1, $1)", org_id)
            await connection.execute("INSERT INTO accounts.projects VALUES ($1, $2, 'Default')", project_id, org_id)
            await connection.execute(
                "INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, key_hash, mode) VALUES ($1, $2, $3, $4, $5, $6)",
                *(f"key_{name}", org_id, project_id, name, key_hash, mode),
            )
            await connection.execute("SELECT billing.open_balance($1)", org_id)
            await connection.execute("SELECT billing.credit($1, $2, 'test')", org_id, parse_usd(balance))
        return key

    async def provider_requests(self) -> list[dict[str, Any]]:
        """What the simulator received since it was last asked to forget."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.simulator_url}/simulator/requests") as got:
            found: list[dict[str, Any]] = (await got.json())["requests"]
            return found

    async def forget_provider_requests(self) -> None:
        """Empty the simulator's record."""
        async with aiohttp.ClientSession() as session, session.delete(f"{self.simulator_url}/simulator/requests"):
            pass

    async def envoy_stats(self, pattern: str) -> dict[str, int]:
        """Envoy's counters whose name matches a regular expression."""
        url = f"{self.endpoints['envoy_admin_url']}/stats?filter={pattern}"
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            lines = (await got.text()).splitlines()
        return {name: int(value) for name, _, value in (line.partition(": ") for line in lines) if value.isdecimal()}

    async def cluster_is_at(self, cluster: str, base_url: str) -> None:
        """Wait until Envoy sends a cluster's traffic to the host and port of a URL."""
        address = urlsplit(base_url).netloc

        async def is_there() -> bool:
            url = f"{self.endpoints['envoy_admin_url']}/clusters"
            async with aiohttp.ClientSession() as session, session.get(url) as got:
                return f"{cluster}::{address}::" in await got.text()

        await eventually(is_there)

    async def request_row(self, request_id: str) -> asyncpg.Record:
        """The row of a finished request, once the sink has written it."""

        async def find() -> asyncpg.Record | None:
            async with self.database() as connection:
                return await connection.fetchrow("SELECT * FROM billing.requests WHERE request_id = $1", request_id)

        return await eventually(find)

    async def clickhouse_row(self, request_id: str) -> Mapping[str, Any]:
        """The row of a finished request in ClickHouse, once it has been exported."""
        [row] = await self._clickhouse_rows("requests", request_id)
        return row

    async def clickhouse_attempt(self, request_id: str) -> Mapping[str, Any]:
        """The one failed attempt of a request in ClickHouse, once it has been exported."""
        [row] = await self._clickhouse_rows("attempts", request_id)
        return row

    async def _clickhouse_rows(self, table: str, request_id: str) -> list[dict[str, Any]]:
        def find() -> list[dict[str, Any]]:
            with clickhouse_connect.get_client(dsn=self.endpoints["clickhouse_url"]) as client:
                query = f"SELECT * FROM {table} FINAL WHERE request_id = {{id:String}}"
                return list(client.query(query, parameters={"id": request_id}).named_results())

        return await eventually(lambda: asyncio.to_thread(find))

    async def clickhouse_count(self, condition: str, *, expected: int) -> int:
        """How many requests ClickHouse has, once that is at least the expected number."""

        async def count() -> int | None:
            found: int = await asyncio.to_thread(self._count, condition)
            return found if found >= expected else None

        return await eventually(count, deadline_s=30)

    def _count(self, condition: str) -> int:
        with clickhouse_connect.get_client(dsn=self.endpoints["clickhouse_url"]) as client:
            rows = client.query(f"SELECT count() FROM requests FINAL WHERE {condition}").result_rows
        return int(rows[0][0])

    async def spool_read(self) -> None:
        """Wait until the sink is at the end of the spool, and has been for longer than Envoy keeps lines back."""
        await self._quiet(_nothing_is_held_back)

    async def settled(self) -> None:
        """Wait until every request so far has its outcome: the sink is at the end of the spool, and no hold is open.

        But for those in quarantine, whose holds wait for a person. Of a request that spends from a slice nothing is open, so
        it has to be like that for longer than Envoy keeps lines back.
        """
        await self._quiet(_no_hold_is_open)

    async def _quiet(self, is_done: Callable[[asyncpg.Connection], Awaitable[bool]]) -> None:
        spool = Path(self.endpoints["spool_dir"]) / "access.jsonl"

        seen: Quiet | None = None

        async def is_quiet() -> bool:
            async with self.database() as connection:
                done = await is_done(connection)
                offset: int = await connection.fetchval(
                    "SELECT coalesce(max(byte_offset), 0) FROM billing.spool_offsets"
                )
            nonlocal seen
            size = spool.stat().st_size
            if not done or offset != size:
                seen = None
            elif seen is None or seen.size != size:
                seen = Quiet(size, time.monotonic())
            return seen is not None and time.monotonic() - seen.since_s > FLUSHED_S

        await eventually(is_quiet)


async def _nothing_is_held_back(_: asyncpg.Connection) -> bool:
    return True


async def _no_hold_is_open(connection: asyncpg.Connection) -> bool:
    found: bool = await connection.fetchval(
        """
        SELECT NOT EXISTS (SELECT FROM billing.holds h WHERE state = 'held'
                           AND NOT EXISTS (SELECT FROM billing.quarantine q WHERE q.request_id = h.request_id))
        """
    )
    return found


async def eventually(find: Callable[[], Awaitable[T | None]], *, deadline_s: float = SETTLE_DEADLINE_S) -> T:
    """The first true answer; fails when there is none in time."""
    async with asyncio.timeout(deadline_s):
        while not (found := await find()):  # noqa: ASYNC110 - it waits for other processes
            await asyncio.sleep(0.05)
    return found


async def add_provider(
    stack: Stack, name: str, base_url: str, credential: str, kind: str = "openai", *, region: str | None = None
) -> None:
    """A provider, written as an operator's change."""
    seal = Seal(SecretStr(stack.secret("tollgate_credential_key")), secrets.token_bytes)
    sealed = seal.seal_secret(provider_credential(ProviderName(name)), SecretStr(credential))
    async with stack.database() as connection:
        await connection.execute(
            "INSERT INTO catalog.providers (name, kind, base_url, credential, region) VALUES ($1, $2, $3, $4, $5)",
            name,
            kind,
            base_url,
            sealed,
            region,
        )


async def provider_credentials(stack: Stack) -> dict[str, str]:
    """The credential of every provider that has one, opened: what must show up nowhere but at that provider."""
    seal = Seal(SecretStr(stack.secret("tollgate_credential_key")), secrets.token_bytes)
    async with stack.database() as connection:
        rows = await connection.fetch("SELECT name, credential FROM catalog.providers WHERE credential IS NOT NULL")
    return {
        row["name"]: seal.open_secret(provider_credential(row["name"]), row["credential"]).get_secret_value()
        for row in rows
    }


async def add_model(
    stack: Stack,
    name: str,
    chain: list[tuple[str, str]],
    *,
    in_one_group: bool = False,
    max_output_tokens: int = 1000,
    endpoints: Sequence[str] = ("chat", "messages", "count_tokens"),
    meters: Sequence[str] = ("input", "cached_input", "output", "reasoning"),
    nano_usd_per_mtok: Mapping[str, int] | None = None,
    first_byte_timeout_ms: int | None = None,
    idle_timeout_ms: int | None = None,
) -> None:
    """A model with a chain of (provider, upstream model); a tenth of a cent per million of what is counted, or what each provider asks.

    Each is a group of its own and tried in this order, or all of them share one group with the same weight.
    """
    amounts = {provider: MTOK_NANO_USD for provider, _ in chain} | dict(nano_usd_per_mtok or {})
    async with stack.database() as connection, connection.transaction():
        await connection.execute(
            """
            INSERT INTO catalog.models (name, owned_by, context_tokens, max_output_tokens, endpoints)
            VALUES ($1, 'test', $2, $3, $4)
            """,
            *(name, CONTEXT_TOKENS, max_output_tokens, endpoints),
        )
        await connection.execute(
            """
            INSERT INTO catalog.routes (name, match, first_byte_timeout_ms, idle_timeout_ms) VALUES ($1, $1, $2, $3)
            """,
            *(name, first_byte_timeout_ms, idle_timeout_ms),
        )
        for position, (provider, upstream_model) in enumerate(chain):
            await connection.execute(
                "INSERT INTO catalog.deployments VALUES ($1, $2, $3)", name, provider, upstream_model
            )
            await connection.execute(
                "INSERT INTO catalog.route_members VALUES ($1, $2, $3)", name, provider, 0 if in_one_group else position
            )
        await connection.executemany(
            """
            INSERT INTO catalog.prices (model, provider, meter, unit, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
            VALUES ($1, $2, $3, $4, $5, $5)
            """,
            [
                (name, provider, meter, next(iter(UNITS_BY_METER[Meter(meter)])), amounts[provider])
                for provider, _ in chain
                for meter in meters
            ],
        )


async def wait_until_routed(stack: Stack, model: str, endpoint: str = "chat") -> None:
    """Wait until Envoy routes a model; no request is sent to it."""

    async def is_routed() -> bool:
        url = f"{stack.endpoints['envoy_admin_url']}/config_dump?resource=dynamic_route_configs"
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            return f'"{endpoint}:{model}"' in await got.text()

    await eventually(is_routed)


@asynccontextmanager
async def second_envoy(stack: Stack) -> AsyncIterator[str]:
    """Another Envoy for the same gateway until the block ends: the URL of its admin interface.

    Both listen on one port, and the kernel gives each new connection to one of them.
    """
    bootstrap = json.loads((stack.data_dir / "run" / "envoy.json").read_text())
    bootstrap["node"] = {**bootstrap["node"], "id": "local-2"}
    async with running_envoy(stack.data_dir.parent / "second-envoy", bootstrap) as admin_url:

        async def listens() -> bool:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{admin_url}/config_dump?resource=dynamic_listeners") as got,
            ):
                return '"active_state"' in await got.text()

        await eventually(listens)
        yield admin_url


@asynccontextmanager
async def running_stack(data_dir: Path, *, replicas: int = 1, **environment: str) -> AsyncIterator[Stack]:
    """A stack until the block ends. The simulator records what it receives; what is printed goes to `<data_dir>.out`."""
    async with running.running_stack(
        data_dir,
        replicas=replicas,
        environment={**os.environ, "TOLLGATE_SIMULATOR_RECORD": "true", **environment},
        output=data_dir.parent / f"{data_dir.name}.out",
    ) as directory:
        ports = json.loads(directory.ports.read_text())
        yield Stack(data_dir, f"http://127.0.0.1:{ports['simulator']}")
