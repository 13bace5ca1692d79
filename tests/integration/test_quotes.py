"""The billing sink's answer to what a request costs, on a real Postgres and over real TLS: rated like its line, for Envoy alone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from billing_sink.envoy_api import BODY_BYTES_MAX
from gateway_core.contract import COST_PATH, Peer
from gateway_core.settings import TlsFiles
from tests.support.envoy_api import serving_envoy_api
from tests.support.planes import Certificates
from tests.support.spool_lines import GRANT, line, refused, render


@dataclass(frozen=True)
class Sink:
    url: str
    certificates: Certificates

    async def ask(self, body: bytes, *, caller: TlsFiles | None) -> tuple[int, str]:
        """As whoever has these certificates."""
        return await self.certificates.post(self.url, body, Peer.BILLING_SINK, caller=caller)

    async def cost(self, **fields: object) -> tuple[int, str]:
        return await self.ask(render(line("r1", **fields)), caller=self.certificates.of(Peer.ENVOY))


@pytest.fixture
async def sink(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Sink]:
    """With gpt-4o-mini at OpenAI for 0.15 dollars a million tokens of input and 0.60 of output, as of revision 18."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO catalog.revisions (revision) OVERRIDING SYSTEM VALUE VALUES (18)")
        await connection.execute("SELECT set_config('tollgate.catalog_revision', '18', true)")
        await connection.execute("INSERT INTO catalog.models VALUES ('gpt-4o-mini', 'openai', 1000, 1000)")
        await connection.executemany(
            "INSERT INTO catalog.prices (model, provider, meter, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)"
            " VALUES ('gpt-4o-mini', 'openai', $1, 1, $2)",
            [("input", 150_000_000), ("output", 600_000_000)],
        )
    certificates = Certificates.issued(tmp_path)
    async with serving_envoy_api(pool, certificates) as url:
        yield Sink(url + COST_PATH, certificates)


async def test_a_line_is_rated_at_the_version_that_it_was_admitted_at(sink: Sink) -> None:
    assert await sink.cost() == (200, "0.00001155")
    assert await sink.cost(grant={**GRANT, "price_version": 17}) == (204, "")


@pytest.mark.parametrize(
    "fields",
    [
        {"usage_first": None},
        {"usage_first": {"prompt_tokens": 1, "completion_tokens": 1, "odd_tokens": 1}},
        {"usage_first": {"prompt_tokens": 10**12}},
        {"cluster": "simulator"},
        {"v": 2},
    ],
    ids=["an estimate", "what nobody knows", "what cannot be", "a stray request", "another version"],
)
async def test_what_would_be_estimated_or_quarantined_has_no_cost_yet(sink: Sink, fields: dict[str, object]) -> None:
    assert await sink.cost(**fields) == (204, "")
    assert (await sink.cost())[0] == 200


async def test_what_costs_nothing_because_it_was_refused_is_not_told(sink: Sink) -> None:
    assert await sink.ask(render(refused()), caller=sink.certificates.of(Peer.ENVOY)) == (204, "")


async def test_envoy_is_answered_and_nobody_else(sink: Sink, tmp_path: Path) -> None:
    body = render(line())
    strangers = Certificates.issued(tmp_path / "others")
    for caller in (None, sink.certificates.of(Peer.EXT_AUTHZ), strangers.of(Peer.ENVOY)):
        with pytest.raises(aiohttp.ClientError):
            await sink.ask(body, caller=caller)
    assert (await sink.ask(body, caller=sink.certificates.of(Peer.ENVOY)))[0] == 200


async def test_a_body_beyond_what_a_line_can_be_is_not_read(sink: Sink) -> None:
    status, _ = await sink.ask(b" " * (BODY_BYTES_MAX + 1), caller=sink.certificates.of(Peer.ENVOY))
    assert status == 413
