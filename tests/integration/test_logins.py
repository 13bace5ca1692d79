"""The services as they run in production: each with a login of its own, in a database that belongs to nobody of them."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from gateway_core.contract import Peer, Service, database_role
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.spool_fields import SPOOL_FILE
from local_stack.ports import free_port
from tests.support.api import PASSWORD
from tests.support.databases import MIGRATIONS
from tests.support.planes import Certificates
from tests.support.processes import running_python
from tests.support.spool_lines import refused, render
from tests.support.stack import eventually

OWNER = "owner"


@asynccontextmanager
async def logins(server_dsn: str) -> AsyncIterator[Mapping[str, str]]:
    """A database whose owner is nobody special, migrated by it; the DSN of the owner and of each service's login."""
    tag = secrets.token_hex(6)
    names = {whose: f"{whose}_{tag}" for whose in (OWNER, *Service)}
    admin = await asyncpg.connect(server_dsn)
    try:
        for name in names.values():
            await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{tag}'")
        await admin.execute(f"CREATE DATABASE {names[OWNER]} OWNER {names[OWNER]}")
        await admin.execute(f"GRANT SET ON PARAMETER tollgate.resealing TO {names[OWNER]}")
        for service in Service:
            # Whoever connects without taking the role may nothing, so that it would show here.
            await admin.execute(f"GRANT {database_role(service)} TO {names[service]} WITH INHERIT FALSE")
        at = urlsplit(server_dsn)
        dsns = {
            whose: at._replace(netloc=f"{name}:{tag}@{at.hostname}:{at.port}", path=f"/{names[OWNER]}").geturl()
            for whose, name in names.items()
        }
        owner = await asyncpg.connect(dsns[OWNER])
        try:
            for schemas, folder in MIGRATIONS.items():
                await migrate(owner, schemas, read_migrations(folder), read_functions(folder))
        finally:
            await owner.close()
        yield dsns
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {names[OWNER]} WITH (FORCE)")
        for name in names.values():
            await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await admin.close()


@pytest.fixture
async def dsns(postgres_dsn: str, database: str) -> AsyncIterator[Mapping[str, str]]:
    """As in `logins`. The roles are there: the owner may not make any."""
    del database
    async with logins(postgres_dsn) as made:
        yield made


async def test_every_service_works_with_a_login_that_may_nothing_but_take_its_role(
    dsns: Mapping[str, str], tmp_path: Path
) -> None:
    certificates = Certificates.issued(tmp_path / "certificates")
    ports, api_port = {service: free_port() for service in Service}, free_port()
    common = {"TOLLGATE_API_KEY_PEPPER": "pepper", "TOLLGATE_CREDENTIAL_KEY": urlsafe_b64encode(bytes(32)).decode()}
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / SPOOL_FILE).write_bytes(render(refused()) + b"\nno line at all\n")
    environments = {
        Service.CONTROL_PLANE: {
            "TOLLGATE_CONTROL_PLANE_PORT": str(api_port),
            "TOLLGATE_CONTROL_PLANE_METRICS_PORT": str(ports[Service.CONTROL_PLANE]),
            "TOLLGATE_XDS_PORT": str(free_port()),
            **certificates.environment("XDS", Peer.CONTROL_PLANE),
        },
        Service.EXT_AUTHZ: {
            "TOLLGATE_EXT_AUTHZ_PORT": str(free_port()),
            "TOLLGATE_EXT_AUTHZ_METRICS_PORT": str(ports[Service.EXT_AUTHZ]),
            **certificates.environment("EXT_AUTHZ", Peer.EXT_AUTHZ),
        },
        Service.BILLING_SINK: {
            "TOLLGATE_CLICKHOUSE_URL": f"http://nobody:x@127.0.0.1:{free_port()}/none",
            "TOLLGATE_SPOOL_DIR": str(spool),
            "TOLLGATE_BILLING_SINK_PORT": str(free_port()),
            "TOLLGATE_BILLING_SINK_METRICS_PORT": str(ports[Service.BILLING_SINK]),
            **certificates.environment("BILLING_SINK", Peer.BILLING_SINK),
        },
    }
    owner = await asyncpg.connect(dsns[OWNER])

    async def all_has_been_written() -> bool:
        found: bool = await owner.fetchval(
            """
            SELECT EXISTS (SELECT FROM billing.requests) AND EXISTS (SELECT FROM billing.quarantine)
               AND EXISTS (SELECT FROM accounts.authorizers) AND EXISTS (SELECT FROM billing.accounts WHERE org_id IS NOT NULL)
            """
        )
        return found

    try:
        async with AsyncExitStack() as running:
            for service in Service:
                environment = {**common, **environments[service], "TOLLGATE_POSTGRES_DSN": dsns[service]}
                ready = f"http://127.0.0.1:{ports[service]}/readyz"
                await running.enter_async_context(running_python(service, ready=ready, **environment))
            new = {"email": "bob@example.com", "password": PASSWORD, "organization": "Engines"}
            url = f"http://127.0.0.1:{api_port}/api/v1/auth/register"
            async with aiohttp.ClientSession() as session, session.post(url, json=new) as response:
                assert response.status == 201, await response.text()
            await eventually(all_has_been_written)
    finally:
        await owner.close()


async def test_a_login_that_is_not_a_member_of_the_role_is_not_let_in(dsns: Mapping[str, str]) -> None:
    for service, other in ((Service.EXT_AUTHZ, Service.CONTROL_PLANE), (Service.BILLING_SINK, Service.EXT_AUTHZ)):
        with pytest.raises(asyncpg.PostgresError, match=r"role|permission"):
            await asyncpg.connect(dsns[service], server_settings={"role": database_role(other)})


async def test_a_login_that_sets_its_role_aside_may_nothing(dsns: Mapping[str, str]) -> None:
    login = await asyncpg.connect(dsns[Service.EXT_AUTHZ], server_settings={"role": database_role(Service.EXT_AUTHZ)})
    try:
        await login.fetch("SELECT * FROM catalog.served")
        for statement in ("SET ROLE tollgate_billing_sink", "SET ROLE NONE; SELECT * FROM catalog.served"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.execute(statement)
    finally:
        await login.close()
