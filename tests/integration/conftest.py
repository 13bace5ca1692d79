"""What many of these tests begin with: the API on a database of its own, and somebody who has signed up."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from tests.support.api import Account, Api


@pytest.fixture
async def api(pool: asyncpg.Pool) -> "AsyncIterator[Api]":
    from tests.support.api import running_api  # noqa: PLC0415 - before pytest knows which warnings are not ours

    async with running_api(pool) as running:
        yield running


@pytest.fixture
async def owner(api: "Api") -> "Account":
    return await api.sign_up("owner@example.com")
