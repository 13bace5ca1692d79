"""What Postgres itself sees to whenever a row of a key is written, whoever writes it and whatever else is in the statement."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway_core.contract import Channel
from tests.support.api import Account, Api

USED = "last_used_at = clock_timestamp()"


class Heard:
    """The announcements of changes of keys."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy) -> None:
        self._connection = connection
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._queue.put_nowait(str(payload))

    async def numbers(self) -> list[int]:
        """Of what was announced since the last look."""
        # Announcements arrive in the order of their commits, so this one is the last of those until now.
        await self._connection.execute("SELECT pg_notify($1, '')", Channel.API_KEY)
        numbers = []
        while payload := await self._queue.get():
            numbers.append(int(payload.partition(":")[0]))
        return numbers


@pytest.fixture
async def heard(pool: asyncpg.Pool) -> AsyncIterator[Heard]:
    async with pool.acquire() as connection:
        heard = Heard(connection)
        await connection.add_listener(Channel.API_KEY, heard.hear)
        yield heard
        await connection.remove_listener(Channel.API_KEY, heard.hear)


async def made(owner: Account, heard: Heard) -> tuple[str, int]:
    """A new key, and the number of its latest change."""
    key = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    return str(key["id"]), (await heard.numbers())[-1]


@pytest.mark.parametrize(
    "change",
    [
        "revoked_at = now()",
        "disabled_at = now()",
        "expires_at = now()",
        "models_allowed = '{none}'",
        "ip_allowed = '{203.0.113.0/24}'",
        "budget_per_month_nano_usd = 1",
        "key_hash = sha256(key_hash)",
        "previous_key_hash = sha256(key_hash), previous_valid_until = now()",
    ],
)
async def test_a_change_is_numbered_and_announced_though_a_use_is_written_with_it(
    owner: Account, api: Api, heard: Heard, change: str
) -> None:
    key_id, number = await made(owner, heard)
    await api.pool.execute(f"UPDATE accounts.api_keys SET {change}, {USED} WHERE key_id = $1", key_id)
    assert await heard.numbers() == [number + 1]
    assert (
        await api.pool.fetchval("SELECT change_number FROM accounts.api_keys WHERE key_id = $1", key_id) == number + 1
    )


async def test_a_use_alone_is_no_change_and_an_update_without_a_difference_is_one(
    owner: Account, api: Api, heard: Heard
) -> None:
    key_id, number = await made(owner, heard)
    for _ in range(2):
        await api.pool.execute(f"UPDATE accounts.api_keys SET {USED} WHERE key_id = $1", key_id)
    assert await heard.numbers() == []
    await api.pool.execute("UPDATE accounts.api_keys SET changed_at = changed_at WHERE key_id = $1", key_id)
    assert await heard.numbers() == [number + 1]


async def test_all_changes_of_a_transaction_have_one_number_and_each_is_announced(
    owner: Account, api: Api, heard: Heard
) -> None:
    key_id, number = await made(owner, heard)
    async with api.pool.acquire() as connection, connection.transaction():
        for change in ("disabled_at = now()", "key_hash = sha256(key_hash)", "key_hash = sha256(key_hash)"):
            await connection.execute(f"UPDATE accounts.api_keys SET {change} WHERE key_id = $1", key_id)
    # Three changes, of which each of the later two has another hash.
    assert await heard.numbers() == [number + 1] * 3
    await api.pool.execute("UPDATE accounts.api_keys SET name = 'x' WHERE key_id = $1", key_id)
    assert await heard.numbers() == [number + 2]


async def test_an_organisation_is_closed_and_opened_by_one_announcement_each(
    owner: Account, api: Api, heard: Heard
) -> None:
    await made(owner, heard)
    _, number = await made(owner, heard)
    for disabled in ("now()", "now()", "NULL"):
        await api.pool.execute(
            f"UPDATE accounts.organizations SET disabled_at = {disabled} WHERE org_id = $1",
            owner.org_id,
        )
    await api.pool.execute("UPDATE accounts.organizations SET name = 'x' WHERE org_id = $1", owner.org_id)
    assert await heard.numbers() == [number + 1, number + 2, number + 3]


async def test_other_budgets_of_a_project_and_another_time_zone_are_one_change_of_all_keys_and_nothing_else_is(
    owner: Account, api: Api, heard: Heard
) -> None:
    await made(owner, heard)
    _, number = await made(owner, heard)
    for change in (
        "budget_per_day_nano_usd = 5",
        "budget_per_day_nano_usd = 5",
        "budget_per_month_nano_usd = 0",
        "name = 'x'",
    ):
        await api.pool.execute(f"UPDATE accounts.projects SET {change} WHERE project_id = $1", owner.project_id)
    assert await heard.numbers() == [number + 1, number + 2]
    for zone in ("Asia/Kathmandu", "Asia/Kathmandu"):
        await api.pool.execute("UPDATE accounts.organizations SET time_zone = $2 WHERE org_id = $1", owner.org_id, zone)
    assert await heard.numbers() == [number + 3]


@pytest.mark.parametrize("beside", ["", f", {USED}", ", disabled_at = now()"])
async def test_the_mode_never_changes_whatever_is_written_with_it(
    owner: Account, api: Api, heard: Heard, beside: str
) -> None:
    key_id, _ = await made(owner, heard)
    with pytest.raises(asyncpg.RaiseError, match="mode of a key never changes"):
        await api.pool.execute(f"UPDATE accounts.api_keys SET mode = 'test'{beside} WHERE key_id = $1", key_id)
