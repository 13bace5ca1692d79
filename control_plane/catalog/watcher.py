"""Keeps the snapshot up to date with the catalogue: reads it again whenever Postgres says it changed."""

import asyncio
from collections.abc import Callable

import asyncpg

from control_plane.catalog.model import Catalog
from control_plane.catalog.postgres_store import read_catalog
from control_plane.sealing import Seal
from gateway_core.contract import Channel
from gateway_core.logs import Logger
from gateway_core.postgres import Listener, Notification, Trouble


class CatalogWatcher:
    """Reads the catalogue at the start, after every change, and after every break of the connection.

    `authorizer_changed` is called when a process of ext_authz says that it serves a newer revision, `attempts_recorded` when there is
    something to judge providers by.
    Postgres gone: the last catalogue stays in force, here and in every Envoy.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        listener: Listener,
        seal: Seal,
        log: Logger,
        *,
        authorizer_changed: Callable[[], None],
        attempts_recorded: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._listener = listener
        self._seal = seal
        self._log = log
        self._authorizer_changed = authorizer_changed
        self._attempts_recorded = attempts_recorded
        self.changed = asyncio.Event()

    async def listen(self) -> None:
        """Note that the catalogue changed (several changes at once are one), and pass on who serves a newer one."""
        async for heard in self._listener.notifications():
            match heard:
                case Notification(channel=Channel.AUTHORIZER):
                    self._authorizer_changed()
                case Notification(channel=Channel.ATTEMPTS):
                    self._attempts_recorded()
                case _:
                    self.changed.set()

    async def next_catalog(self) -> Catalog:
        """The catalogue, as soon as it may have changed."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            try:
                return await read_catalog(self._pool, self._seal, self._log)
            except Trouble as error:
                self._log.warning("catalog_unreadable", error=type(error).__name__)
                self.changed.set()
                await asyncio.sleep(1)
