"""Asks providers for the list of their models, to see whether they are there: those that are down, and those that nobody asks for anything.

It costs nothing at the provider, and goes through the same judgement of addresses as everything else that is dialled from here.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import aiohttp
import asyncpg

from control_plane.catalog.model import Catalog, Provider
from control_plane.catalog.provider_state import Condition, Subject
from gateway_core.clock import Now
from gateway_core.contract import Channel
from gateway_core.ids import ProviderName
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 1.0
WHILE_DOWN: Final = timedelta(seconds=5)
"""How often who is down is asked, where that is not more seldom in any case."""
AT_ONCE_MAX: Final = 8
HEADERS: Final = {"User-Agent": "Tollgate-Probe"}

_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a probe. Who refuses our credential, or has no such list, is there all the same."""

    answered: bool
    status: int | None
    why: str


class Probes:
    """Looks once a second who is due. A probe that two control planes think of is made by one of them."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        http: aiohttp.ClientSession,
        catalog: Callable[[], Catalog],
        now: Now,
        log: Logger,
        *,
        every: timedelta,
    ) -> None:
        self._pool = pool
        self._http = http
        self._catalog = catalog
        self._now = now
        self._log = log
        self._every = every

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            try:
                await self.probe_due()
            except Trouble as error:
                self._log.warning("probes_unavailable", error=type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def probe_due(self) -> None:
        """Make the probes that are due, some at a time.

        Raises:
            asyncpg.PostgresError, OSError: those that were begun count as made.
        """
        now = self._now()
        claimed = await self._claim(now)
        due = [found for name in claimed if (found := self._catalog().providers.get(name)) is not None]
        places = asyncio.Semaphore(AT_ONCE_MAX)

        async def make(provider: Provider) -> None:
            async with places:
                found = await probe(self._http, provider)
                try:
                    await self._record(provider.name, found)
                except Trouble as error:
                    self._log.warning("probe_not_recorded", provider=provider.name, error=type(error).__name__)

        async with asyncio.TaskGroup() as group:
            for provider in due:
                group.create_task(make(provider), name=f"probe_{provider.name}")

    async def _claim(self, now: datetime) -> Sequence[ProviderName]:
        catalog = self._catalog()
        pauses = {
            name: min(self._every, WHILE_DOWN) if _is_down(catalog, name) else self._every
            for name, provider in catalog.providers.items()
            if can_be_probed(provider) and not catalog.is_paused(name)
        }
        down = [name for name in pauses if _is_down(catalog, name)]
        rows = await self._pool.fetch(
            """
            WITH due AS (
                SELECT c.name FROM unnest($1::text[], $2::interval[]) AS c (name, pause)
                JOIN catalog.providers v USING (name) LEFT JOIN catalog.provider_probes p ON p.provider = c.name
                WHERE p.begun_at IS NULL OR p.begun_at <= $4::timestamptz - c.pause
            )
            INSERT INTO catalog.provider_probes AS made (provider, begun_at)
            SELECT name, $4::timestamptz FROM due
            WHERE name = ANY($3) OR NOT EXISTS (
                SELECT FROM billing.requests r WHERE r.recorded_at > $4::timestamptz - $5::interval AND r.provider = due.name)
            ORDER BY name
            ON CONFLICT (provider) DO UPDATE SET begun_at = excluded.begun_at
            -- Another control plane may have been faster.
            WHERE made.begun_at <= excluded.begun_at - $6::interval
            RETURNING provider
            """,
            *([*pauses], [*pauses.values()], down, now, self._every, min(self._every, WHILE_DOWN)),
        )
        return [ProviderName(row["provider"]) for row in rows]

    async def _record(self, name: ProviderName, found: Found) -> None:
        await self._pool.execute(
            """
            UPDATE catalog.provider_probes SET ended_at = $2, answered = $3, status = $4, why = $5,
                failures = CASE WHEN $3 THEN 0 ELSE failures + 1 END
            WHERE provider = $1
            """,
            *(name, self._now(), found.answered, found.status, found.why),
        )
        await self._pool.execute("SELECT pg_notify($1, '')", Channel.ATTEMPTS)


def can_be_probed(provider: Provider) -> bool:
    """Whether there is something to ask it for, and nobody objects."""
    return provider.probed and provider.template.probe_path is not None


async def probe(http: aiohttp.ClientSession, provider: Provider) -> Found:
    """Ask one provider for its models. What it answers is not read."""
    template = provider.template
    headers = {**template.default_headers, **provider.headers}
    if provider.credential is not None:
        headers[template.credential_header] = template.credential_prefix + provider.credential.get_secret_value()
    url = provider.base_url.rstrip("/") + (template.probe_path or "")
    try:
        async with http.get(url, headers=headers, allow_redirects=False) as response:
            is_well = response.status < _SERVER_ERROR
            return Found(is_well, response.status, f"asked for its models it answered {response.status}")
    except TimeoutError:
        return Found(False, None, "asked for its models it did not answer in time")
    except (aiohttp.ClientError, OSError, ValueError):
        # No words of the client's: they may quote what was sent.
        return Found(False, None, "asked for its models it could not be reached")


def _is_down(catalog: Catalog, name: ProviderName) -> bool:
    state = catalog.states.get(Subject(name))
    return state is not None and state.condition is Condition.DOWN
