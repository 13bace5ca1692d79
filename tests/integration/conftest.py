"""What many of these tests begin with: the API on a database of its own, somebody who has signed up, and a Valkey with nothing in it."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway_core.contract import Service
from gateway_core.postgres import connect_pool
from local_stack.valkey import running_valkey

if TYPE_CHECKING:
    from tests.support.api import Account, Api


@pytest.fixture
async def in_its_role(database: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool on the test's own database, as the control plane has it."""
    async with await connect_pool(SecretStr(database), service=Service.CONTROL_PLANE, size_max=10) as created:
        yield created


@pytest.fixture
async def api(pool: asyncpg.Pool, in_its_role: asyncpg.Pool) -> "AsyncIterator[Api]":
    from tests.support.api import running_api  # noqa: PLC0415 - before pytest knows which warnings are not ours

    async with running_api(pool, in_its_role=in_its_role) as running:
        yield running


@pytest.fixture
async def owner(api: "Api") -> "Account":
    return await api.sign_up("owner@example.com")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretStr]:
    """One for the tests of a file."""
    async with running_valkey(tmp_path_factory.mktemp("valkey") / "valkey") as running:
        yield SecretStr(running)


@pytest_asyncio.fixture(loop_scope="session")
async def empty(valkey: SecretStr) -> AsyncIterator[SecretStr]:
    """The same for each test, with nothing in it."""
    async with Redis.from_url(valkey.get_secret_value()) as redis:
        await redis.flushall()
    yield valkey
