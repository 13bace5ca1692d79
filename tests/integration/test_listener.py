"""Notifications of a real Postgres over a connection that breaks: what is heard, and what is to be seen meanwhile."""

import asyncio
from typing import cast

import asyncpg
import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from gateway_core.contract import Service
from gateway_core.logs import Logger
from gateway_core.postgres import Listener, Notification, Resync
from local_stack.ports import free_port
from tests.support.stack import eventually


class Watched:
    """A listener of a service, its log and its gauge."""

    def __init__(self, dsn: str) -> None:
        self._captured = structlog.testing.LogCapture()
        self._registry = CollectorRegistry()
        log = cast("Logger", structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._captured]))
        self.listener = Listener(SecretStr(dsn), ["one"], service=Service.EXT_AUTHZ, registry=self._registry, log=log)

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self._captured.entries]

    @property
    def text(self) -> str:
        return str(self._captured.entries)

    @property
    def listening(self) -> float | None:
        return self._registry.get_sample_value("tollgate_ext_authz_listening")


async def end_connections(pool: asyncpg.Pool) -> int:
    ended: int = await pool.fetchval(
        """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'ext_authz listener' AND datname = current_database()
        """
    )
    return ended


async def test_a_connection_that_breaks_is_logged_once_and_once_when_it_is_back(
    database: str, pool: asyncpg.Pool
) -> None:
    watched = Watched(database)
    heard: asyncio.Queue[Notification | Resync] = asyncio.Queue()

    async def follow() -> None:
        async for each in watched.listener.notifications():
            heard.put_nowait(each)

    async def next_heard() -> Notification | Resync:
        return await asyncio.wait_for(heard.get(), 5)

    task = asyncio.create_task(follow())
    assert await next_heard() == Resync()
    assert (watched.events, watched.listening) == ([], 1)
    await pool.execute("NOTIFY one, 'news'")
    assert await next_heard() == Notification("one", "news")
    assert await end_connections(pool) == 1
    # Once when it breaks and once when it is back.
    assert [await next_heard(), await next_heard()] == [Resync(), Resync()]
    assert (watched.events, watched.listening) == (["listener_lost", "listener_back"], 1)
    await pool.execute("NOTIFY one, 'more'")
    assert await next_heard() == Notification("one", "more")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_connection_that_cannot_be_made_is_logged_once_without_the_dsn() -> None:
    watched = Watched(f"postgresql://somebody:secret@127.0.0.1:{free_port()}/nowhere")

    async def follow() -> None:
        async for _ in watched.listener.notifications():
            raise AssertionError("there is nobody to hear")

    async def is_lost() -> bool:
        return bool(watched.events)

    task = asyncio.create_task(follow())
    await eventually(is_lost, deadline_s=5)
    await asyncio.sleep(0.6)
    assert (watched.events, watched.listening) == (["listener_lost"], 0)
    assert "secret" not in watched.text
    assert "somebody" not in watched.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
