"""Connections to Postgres, and its notifications as a stream that admits when it has missed some."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Gauge
from pydantic import SecretStr

from gateway_core.contract import Service, database_role
from gateway_core.logs import Logger

NOTIFICATIONS_MAX: Final = 10_000
RECONNECT_DELAY_S: Final = 0.25
KEEPALIVE_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0

Trouble = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What a Postgres that is down, restarting or overloaded raises; the third where a connection is cut while it is handed out."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One NOTIFY: its channel and payload."""

    channel: str
    payload: str


@dataclass(frozen=True, slots=True)
class Resync:
    """Notifications may have been missed: whatever is kept in memory has to be read again. Comes first of all.

    It also comes when the connection breaks, so that nothing old is relied on until it is back, and then once more.
    """


def server_settings(service: Service, *, part: str = "") -> dict[str, str]:
    """What every connection of a service begins with: its role, and the name, with that of a part, that pg_stat_activity shows.

    Where the login is not a member of the role, Postgres refuses the connection.
    """
    return {"application_name": f"{service} {part}".rstrip(), "role": database_role(service)}


async def connect_pool(
    dsn: SecretStr, *, service: Service, size_max: int, timeout_s: float = STATEMENT_TIMEOUT_S
) -> asyncpg.Pool:
    """A pool of up to `size_max` connections in the service's role.

    Raises:
        OSError, asyncpg.PostgresError: the server cannot be reached or refuses; the caller decides whether to retry.
    """
    return await asyncpg.create_pool(
        dsn.get_secret_value(),
        min_size=1,
        max_size=size_max,
        command_timeout=timeout_s,
        server_settings=server_settings(service),
        reset=_nothing_to_reset,
    )


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """Called when a connection goes back to its pool, after what was left of a transaction is rolled back.

    asyncpg would ask Postgres to forget settings, locks and cursors: as much work as a small query, and nothing of ours outlives its
    transaction in a pool. What does, locks and notifications, has a connection of its own.
    """


class Listener:
    """Every NOTIFY on some channels, over a connection of its own that is made again when it breaks.

    Whoever relies on it works on with what it last heard while the connection is away. So that this is seen, it is logged once when
    it is lost and once when it is back, and `tollgate_<service>_listening` is 0 in between.
    """

    def __init__(
        self, dsn: SecretStr, channels: Sequence[str], *, service: Service, registry: CollectorRegistry, log: Logger
    ) -> None:
        self._dsn = dsn
        self._channels = channels
        self._service = service
        self._log = log.bind(channels=list(channels))
        self._is_lost = False
        self._listening = Gauge(
            f"tollgate_{service}_listening", "Whether Postgres can tell of changes: 1, or 0", registry=registry
        )

    async def notifications(self) -> AsyncIterator[Notification | Resync]:
        """Yields a `Resync` after each (re)connect, when the connection breaks, and when more than `NOTIFICATIONS_MAX` were waiting.

        Never ends by itself.
        """
        while True:
            queue: asyncio.Queue[Notification | Resync] = asyncio.Queue(NOTIFICATIONS_MAX)
            receive = _receiver(queue)
            try:
                connection = await asyncpg.connect(
                    self._dsn.get_secret_value(),
                    timeout=5,
                    server_settings=server_settings(self._service, part="listener"),
                )
            except Trouble as error:
                self._lost(type(error).__name__)
                await asyncio.sleep(RECONNECT_DELAY_S)
                continue
            try:
                connection.add_termination_listener(_end_listener(queue))
                for channel in self._channels:
                    await connection.add_listener(channel, receive)
                self._back()
                yield Resync()
                while not connection.is_closed():
                    try:
                        yield await asyncio.wait_for(queue.get(), KEEPALIVE_S)
                    except TimeoutError:
                        # A connection that died without a word is noticed here and not at the next change.
                        await connection.execute("SELECT 1", timeout=KEEPALIVE_S)
                self._lost("closed")
            except Trouble as error:
                self._lost(type(error).__name__)
            finally:
                connection.terminate()
            await asyncio.sleep(RECONNECT_DELAY_S)

    def _lost(self, error: str) -> None:
        self._listening.set(0)
        if not self._is_lost:
            # The kind of error and no more: what a driver says may quote the DSN.
            self._log.warning("listener_lost", error=error)
            self._is_lost = True

    def _back(self) -> None:
        self._listening.set(1)
        if self._is_lost:
            self._log.info("listener_back")
            self._is_lost = False


def _receiver(queue: asyncio.Queue[Notification | Resync]) -> Callable[[object, int, str, object], None]:
    def receive(_connection: object, _pid: int, channel: str, payload: object) -> None:
        if queue.full():
            _start_over(queue)
        else:
            queue.put_nowait(Notification(channel, str(payload)))

    return receive


def _end_listener(queue: asyncio.Queue[Notification | Resync]) -> Callable[[object], None]:
    def note_the_end(_connection: object) -> None:
        _start_over(queue)

    return note_the_end


def _start_over(queue: asyncio.Queue[Notification | Resync]) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(Resync())
