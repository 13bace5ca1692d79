"""What the billing sink answers Envoy with, as a whole: to nobody else, and in the form that clients read."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gateway_core.contract import COST_PATH, KEEP_PATH, Header, Peer
from tests.support.envoy_api import serving_envoy_api
from tests.support.planes import Certificates


@dataclass(frozen=True)
class Sink:
    url: str
    certificates: Certificates

    async def ask(self, method: str, path: str, caller: Peer = Peer.ENVOY) -> tuple[int, str]:
        return await self.certificates.ask(
            method,
            self.url + path,
            Peer.BILLING_SINK,
            caller=self.certificates.of(caller),
            headers={Header.ORG: "org_1", Header.MODE: "live", Header.KEY_ID: "key_1"},
        )


@pytest.fixture
async def sink(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Sink]:
    certificates = Certificates.issued(tmp_path)
    async with serving_envoy_api(pool, certificates) as url:
        yield Sink(url, certificates)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", COST_PATH),
        ("POST", KEEP_PATH),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/batch_1"),
        ("POST", "/v1/batches/batch_1/cancel"),
        ("GET", "/nothing"),
    ],
)
async def test_whoever_is_not_envoy_gets_nowhere(sink: Sink, method: str, path: str) -> None:
    assert await sink.ask(method, path, caller=Peer.BILLING_SINK) == (403, "only for envoy\n")
    assert (await sink.ask(method, path))[0] != 403


async def test_without_postgres_a_client_is_told_to_come_back(sink: Sink, pool: asyncpg.Pool) -> None:
    assert (await sink.ask("GET", "/v1/batches"))[0] == 200
    await pool.execute("ALTER TABLE billing.batches RENAME TO gone")
    status, text = await sink.ask("GET", "/v1/batches")
    assert (status, json.loads(text)["error"]["code"]) == (503, "database_unavailable")


async def test_what_nobody_has_foreseen_is_answered_in_the_form_of_every_other_error(
    sink: Sink, pool: asyncpg.Pool
) -> None:
    await pool.execute(
        """
        INSERT INTO billing.batches (
            batch_id, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, created_at)
        VALUES ('batch_1', 'live', 'org_1', 'prj', 'key_1', 'p', 'of another time', 'file-1', '{}', now())
        """
    )
    status, text = await sink.ask("GET", "/v1/batches/batch_1")
    assert (status, json.loads(text)["error"]["code"]) == (500, "internal_error")
