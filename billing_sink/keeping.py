"""Writes down what a provider keeps while its answer waits, so that the client's next request finds it.

What is said here is said once more by the line of the request in the spool: whatever dies between, no id is lost.
"""

import asyncpg
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from billing_sink.access_log import InvalidLineError, parse_line
from billing_sink.kept import Forgotten, Kept, kept_by
from billing_sink.postgres_kept import write_down
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble


class Keeping:
    """Answers Envoy: 204 once it is written down, 409 if it is another organisation's."""

    def __init__(self, pool: asyncpg.Pool, registry: CollectorRegistry, log: Logger) -> None:
        self._pool = pool
        self._log = log
        self._kept = Counter(
            "tollgate_billing_sink_kept_total",
            "Answers about what a provider keeps that were written down before their clients had them",
            ["outcome"],
            registry=registry,
        )

    async def answer(self, request: web.Request) -> web.Response:
        """Write down what a line says."""
        try:
            found = kept_by(parse_line(await request.read()))
            if found is None:
                self._log.warning("kept_unreadable")
                return self._ended("unreadable", 400)
            async with self._pool.acquire() as connection:
                conflicts = await write_down(
                    connection,
                    [found] if isinstance(found, Kept) else [],
                    [found] if isinstance(found, Forgotten) else [],
                )
        except InvalidLineError as error:
            self._log.warning("kept_unreadable", error=str(error))
            return self._ended("unreadable", 400)
        except Trouble as error:
            self._log.warning("kept_unavailable", error=type(error).__name__)
            return self._ended("unavailable", 503)
        if conflicts:
            # A provider that says one id twice, or says one that is none of its own.
            self._log.error("kept_conflict", kind=found.name.kind, org_id=found.org_id)
            return self._ended("conflict", 409)
        return self._ended("written", 204)

    def _ended(self, outcome: str, status: int) -> web.Response:
        self._kept.labels(outcome).inc()
        return web.Response(status=status)
