"""What providers keep, in Postgres: one owner, whoever says it and however often, and gone for good."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from billing_sink.access_log import parse_line
from billing_sink.kept import Forgotten, Kept, kept_by
from billing_sink.postgres_kept import write_down
from ext_authz.kept import Files, Place
from ext_authz.postgres_kept import PostgresKept
from gateway_core.contract import KEEP_PATH, Peer
from gateway_core.ids import OrgId, ProviderName
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode
from tests.support.envoy_api import serving_envoy_api
from tests.support.planes import Certificates
from tests.support.spool_lines import GRANT, Json, line, render

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FILE = KeptName(KeptKind.FILE, ObjectId("file-1"))


def upload(org_id: str = "org_1", **fields: object) -> Json:
    about = '{"id":"file-1","object":"file","filename":"a\\u0000"}'
    request = {"endpoint": "file_upload", "mode": "live"}
    return line(f"up-{org_id}", request=request, grant={**GRANT, "org_id": org_id}, kept=about, **fields)


def deletion(org_id: str = "org_1") -> Json:
    request = {"endpoint": "file_delete", "mode": "live", "named": str(FILE)}
    return line(f"down-{org_id}", request=request, grant={**GRANT, "org_id": org_id})


async def written(pool: asyncpg.Pool, *lines: Json) -> list[str]:
    found = [kept_by(parse_line(render(each))) for each in lines]
    kept = [each for each in found if isinstance(each, Kept)]
    forgotten = [each for each in found if isinstance(each, Forgotten)]
    async with pool.acquire() as connection:
        return list(await write_down(connection, kept, forgotten))


async def owner(pool: asyncpg.Pool, org_id: str = "org_1", mode: Mode = Mode.LIVE) -> Place | None:
    found = await PostgresKept(pool).find(OrgId(org_id), mode, [FILE])
    return found.get(FILE)


async def test_an_id_has_one_owner_however_often_and_by_whomever_it_is_said(pool: asyncpg.Pool) -> None:
    assert await written(pool, upload()) == []
    assert await written(pool, upload()) == []
    assert await written(pool, upload("org_2")) == ["file-1"]
    assert await owner(pool) == Place(ProviderName("openai"))
    assert await owner(pool, "org_2") is None
    assert await owner(pool, mode=Mode.TEST) is None


async def test_two_that_say_one_id_at_once_do_not_both_own_it(pool: asyncpg.Pool) -> None:
    found = await asyncio.gather(*(written(pool, upload(f"org_{number}")) for number in range(8)))
    assert sorted(map(len, found)) == [0, *[1] * 7]


async def test_what_is_gone_is_not_brought_back_by_a_line_that_comes_late(pool: asyncpg.Pool) -> None:
    await written(pool, upload())
    await written(pool, deletion("org_2"))
    assert await owner(pool) is not None
    await written(pool, deletion())
    await written(pool, upload())
    assert await owner(pool) is None
    # Nor is it anybody else's then.
    assert await written(pool, upload("org_2")) == ["file-1"]


async def test_files_are_counted_for_their_owner_while_they_are_kept(pool: asyncpg.Pool) -> None:
    async def files(org_id: str = "org_1", mode: Mode = Mode.LIVE) -> Files:
        return await PostgresKept(pool).files(OrgId(org_id), mode, NOW)

    def sized(name: str, said: object, org_id: str = "org_1", **about: object) -> Json:
        request = {"endpoint": "file_upload", "mode": "live"}
        kept = json.dumps({"id": name, "bytes": said, **about})
        return line(name, request=request, grant={**GRANT, "org_id": org_id}, kept=kept)

    await written(pool, sized("file-1", 100), sized("file-2", 2**60), sized("file-3", "7"), sized("other", 5, "org_2"))
    await written(pool, sized("over", 50, expires_at=int(NOW.timestamp()) - 1))
    assert await files() == Files(3, 100)
    assert await files("org_2") == Files(1, 5)
    assert await files(mode=Mode.TEST) == Files(0, 0)
    await written(pool, deletion())
    assert await files() == Files(2, 0)


async def test_one_id_may_be_kept_live_and_by_the_simulator(pool: asyncpg.Pool) -> None:
    await written(pool, upload())
    await written(
        pool,
        line(
            "test",
            request={"endpoint": "file_upload", "mode": "test"},
            grant={**GRANT, "org_id": "org_2", "mode": "test"},
            cluster="simulator",
            kept='{"id":"file-1"}',
        ),
    )
    assert await owner(pool, "org_2", Mode.TEST) == Place(None)
    assert await owner(pool) == Place(ProviderName("openai"))


@dataclass(frozen=True)
class Sink:
    url: str
    certificates: Certificates

    async def ask(self, told: Json, caller: Peer = Peer.ENVOY) -> int:
        status, _ = await self.certificates.post(
            self.url, render(told), Peer.BILLING_SINK, caller=self.certificates.of(caller)
        )
        return status


@pytest.fixture
async def sink(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Sink]:
    certificates = Certificates.issued(tmp_path)
    async with serving_envoy_api(pool, certificates) as url:
        yield Sink(url + KEEP_PATH, certificates)


async def test_the_sink_answers_once_it_is_written_and_says_what_is_not(sink: Sink, pool: asyncpg.Pool) -> None:
    assert await sink.ask(upload()) == 204
    assert await owner(pool) is not None
    assert await sink.ask(upload()) == 204
    assert await sink.ask(upload("org_2")) == 409
    assert await sink.ask(deletion()) == 204
    assert await owner(pool) is None
    assert await sink.ask(line()) == 400
    assert await sink.ask({"v": 2}) == 400


async def test_nobody_but_envoy_may_say_whose_something_is(sink: Sink, pool: asyncpg.Pool) -> None:
    with pytest.raises(aiohttp.ClientError):
        await sink.ask(upload(), Peer.EXT_AUTHZ)
    assert await owner(pool) is None


async def test_without_postgres_nothing_is_said_to_be_written(sink: Sink, pool: asyncpg.Pool) -> None:
    await pool.execute("ALTER TABLE billing.kept_objects RENAME TO gone")
    assert await sink.ask(upload()) == 503
