"""Tells all control planes what the Envoys of this one have accepted and refused, and settles operations by it."""

import asyncio

from control_plane.publisher import Publisher
from control_plane.xds.nodes import NodeRegistry
from control_plane.xds.postgres_nodes import PostgresNodes
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

HEARTBEAT_S = 2.0
"""Well below the 10 s after which catalog.connected_nodes takes a control plane for gone."""
RETRY_S = 0.5


class NodeReports:
    """Reports after every change, and now and then without one. Postgres gone: operations wait; Envoys do not."""

    def __init__(self, log: Logger) -> None:
        self._changed = asyncio.Event()
        self._log = log

    def changed(self) -> None:
        """There is something to report; several changes at once are one report."""
        self._changed.set()

    async def run(self, publisher: Publisher, nodes: NodeRegistry, store: PostgresNodes) -> None:
        """Report for ever."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass  # a heartbeat
            self._changed.clear()
            try:
                await store.report(
                    nodes.nodes(), published=publisher.catalog.revision, untranslatable=publisher.untranslatable
                )
            except Trouble as error:
                self._log.warning("node_report_failed", error=type(error).__name__)
                self._changed.set()
                await asyncio.sleep(RETRY_S)
