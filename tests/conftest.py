"""What tests of several folders share: real parts, started once per run."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.support.databases import fresh_database, postgres_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A Postgres 18 server for the whole run."""
    async with postgres_server(tmp_path_factory.mktemp("postgres")) as dsn:
        yield dsn


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[str]:
    """The DSN of a database of the test's own, with every migration applied."""
    async with fresh_database(postgres_dsn) as dsn:
        yield dsn


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool on the test's own database."""
    async with asyncpg.create_pool(database, min_size=1, max_size=10) as created:
        yield created


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes tests/golden/ anew."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """The generated classes of envoy-data-plane use pydantic in a way newer versions warn of; not ours to mend."""
    config.addinivalue_line("filterwarnings", "ignore:Using .@model_validator. with mode=.after.:DeprecationWarning")
