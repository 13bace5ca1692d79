"""What tests of several folders share: real parts, started once per run."""

from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
from pydantic import SecretStr

from billing_sink.postgres_claim import SpoolClaim, connect
from gateway_core.clock import monotonic
from tests.support.databases import fresh_database, postgres_server
from tests.support.stack import Stack, running_stack


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


@pytest.fixture
async def claim(database: str) -> AsyncIterator[SpoolClaim]:
    """What a sink on the test's own database reads a spool with."""
    created = SpoolClaim(partial(connect, SecretStr(database)), monotonic)
    yield created
    await created.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The whole gateway, started once as a newcomer starts it, but that no provider is left out for what a test has it do."""
    async with running_stack(tmp_path_factory.mktemp("stack") / "data", TOLLGATE_PROVIDER_HEALTH="false") as running:
        yield running


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes tests/golden/ anew."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """What holds for every test: which warnings are not ours to mend, and how hypothesis runs."""
    # The generated classes of envoy-data-plane use pydantic in a way that newer versions of it warn of.
    config.addinivalue_line("filterwarnings", "ignore:Using .@model_validator. with mode=.after.:DeprecationWarning")
    # A busy machine is no finding; what to run again for the same one is.
    hypothesis.settings.register_profile("tollgate", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("tollgate")
