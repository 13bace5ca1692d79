"""What this process tells the owner of schema `accounts`, through its functions: that it runs, how far it is, what was used."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import asyncpg

from ext_authz.uptake import TakenUp
from gateway_core.contract import Channel
from gateway_core.ids import KeyId


class PostgresAuthorizers:
    """One of the processes of ext_authz, under an id of its own. Every method raises what Postgres in trouble raises."""

    def __init__(self, pool: asyncpg.Pool, instance_id: str) -> None:
        self._pool = pool
        self._instance_id = instance_id

    async def newest_change(self) -> int:
        """The number of the latest change of a key that is committed."""
        number: int = await self._pool.fetchval("SELECT number FROM accounts.key_changes")
        return number

    async def report(self, taken_up: TakenUp) -> bool:
        """This process runs, and has taken up so much. False if there was no such change yet: then nothing is noted."""
        believed: bool = await self._pool.fetchval(
            "SELECT accounts.report_authorizer($1, $2, $3, $4)",
            self._instance_id,
            taken_up.number,
            timedelta(seconds=taken_up.age_s),
            taken_up.catalog_revision,
        )
        return believed

    async def count(self) -> int:
        """How many processes are heard from."""
        count: int = await self._pool.fetchval("SELECT count(*) FROM accounts.live_authorizers")
        return count

    async def dismiss(self) -> None:
        """This process ends."""
        await self._pool.execute("SELECT accounts.dismiss_authorizer($1)", self._instance_id)

    async def touch_keys(self, uses: Mapping[KeyId, datetime]) -> None:
        """Write down when keys were last used."""
        await self._pool.execute("SELECT accounts.touch_keys($1, $2)", list(uses), list(uses.values()))

    async def tell_unspent(self, unspent: str) -> None:
        """Tell every process what Envoy has given back, whichever of them has lent it."""
        await self._pool.execute("SELECT pg_notify($1, $2)", Channel.UNSPENT, unspent)
