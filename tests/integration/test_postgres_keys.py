"""Keys that are looked up by many at once, on a real Postgres."""

import asyncio

import asyncpg

from gateway_core.api_keys import KeyHash, hash_key
from gateway_core.postgres_keys import AT_ONCE_MAX, PostgresKeys
from tests.support.api import PEPPER, Account
from tests.support.stack import eventually

WAVES = 3
KEYS = 20
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%accounts.find_key%'"


async def test_many_at_once_are_looked_up_together_and_who_gives_up_takes_no_answer_from_the_others(
    pool: asyncpg.Pool, owner: Account
) -> None:
    made = [await owner.api.post(f"{owner.org}/keys", {"name": f"{number}"}) for number in range(KEYS)]
    ids = {hash_key(each["key"], PEPPER): each["id"] for each in made}
    keys, absent = PostgresKeys(pool), KeyHash(bytes(32))

    async def all_that_may_are_asked() -> bool:
        return bool(await pool.fetchval(WAITING) >= AT_ONCE_MAX)

    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE accounts.api_keys")
        waves = []
        for _ in range(WAVES):
            waves.append([asyncio.create_task(keys.find(each)) for each in (*ids, absent)])
            # Each wave has asked before the next one begins.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await eventually(all_that_may_are_asked)
        assert await pool.fetchval(WAITING) == AT_ONCE_MAX
        for wave in waves:
            wave[0].cancel()
    for wave in waves:
        found = await asyncio.gather(*wave[1:])
        assert [key and key.key_id for key in found] == [*list(ids.values())[1:], None]
