"""What the roles of the services may do in Postgres, and what they may not: the functions of a schema are the only way in."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import pytest

from gateway_core.contract import Service, database_role
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.postgres import server_settings
from tests.support.databases import MIGRATIONS, ROOT

SERVICES = list(Service)

BOOKS = {
    *("accounts", "holds", "slices", "transactions", "entries", "requests", "spending", "seals", "invoices"),
    *("spool_offsets", "quarantine_decisions", "provider_sums", "reconciliations"),
    *("inspection_orders", "attempts", "kept_objects", "provider_limits"),
}
"""Tables of `billing` that no service writes to."""

BESIDE_THE_BOOKS = {
    ("quarantine", "INSERT"): Service.BILLING_SINK,
    ("inspections", "INSERT"): Service.BILLING_SINK,
    ("export_cursors", "INSERT"): Service.BILLING_SINK,
    ("export_cursors", "UPDATE"): Service.BILLING_SINK,
    ("batches", "INSERT"): Service.BILLING_SINK,
    ("batch_lines", "INSERT"): Service.BILLING_SINK,
    ("batch_lines", "DELETE"): Service.BILLING_SINK,
}
"""Who writes where without a function."""

FORBIDDEN = (
    "CREATE TEMPORARY TABLE settling_asked (position bigint)",
    *(f"CREATE TABLE {schema}.t (n integer)" for schema in ("billing", "accounts", "catalog", "payments", "public")),
    "CREATE FUNCTION billing.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA s",
    "ALTER FUNCTION billing.settle SECURITY INVOKER",
    "CREATE OR REPLACE FUNCTION billing.quarantine_wait() RETURNS interval LANGUAGE sql AS 'SELECT NULL'",
    "ALTER ROLE tollgate_ext_authz SUPERUSER",
    "SET session_replication_role = replica",
    "SELECT setval('billing.transactions_transaction_id_seq', 1)",
    "DELETE FROM public.tollgate_migrations",
    "SELECT * FROM public.tollgate_functions",
    "UPDATE accounts.audit_log SET action = action",
    "DELETE FROM accounts.audit_log",
    "UPDATE catalog.prices SET model = model",
    "TRUNCATE accounts.users CASCADE",
)
"""To every service."""

CALLED_IN = {
    Service.CONTROL_PLANE: ("control_plane", "gateway_core/postgres_keys.py"),
    Service.EXT_AUTHZ: ("ext_authz", "gateway_core/postgres_keys.py", "gateway_core/postgres_holds.py"),
    Service.BILLING_SINK: ("billing_sink", "gateway_core/postgres_holds.py"),
}
"""Each its own package, and what it shares with others and calls something by."""


@asynccontextmanager
async def connected(dsn: str, service: Service) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the service has it."""
    connection = await asyncpg.connect(dsn, server_settings=server_settings(service))
    try:
        yield connection
    finally:
        await connection.close()


async def refused(connection: asyncpg.Connection, statement: str) -> bool:
    """Whether a statement fails because the role may not; undone if it does not."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    except asyncpg.PostgresError:
        # Postgres looks at rights before it looks at rows: it got as far as those.
        return False
    finally:
        await transaction.rollback()
    return False


async def tables_of(pool: asyncpg.Pool, schema: str) -> Mapping[str, str]:
    """Every table and view of a schema, and one of its columns."""
    rows = await pool.fetch(
        """
        SELECT table_name, min(column_name) AS name FROM information_schema.columns
        WHERE table_schema = $1 AND is_identity = 'NO' AND is_generated = 'NEVER' GROUP BY table_name
        """,
        schema,
    )
    return {row["table_name"]: row["name"] for row in rows}


def changes(table: str, column: str) -> Mapping[str, str]:
    """A statement of each kind that would change a table."""
    return {
        "INSERT": f"INSERT INTO {table} DEFAULT VALUES",
        "UPDATE": f"UPDATE {table} SET {column} = {column}",
        "DELETE": f"DELETE FROM {table}",
        "TRUNCATE": f"TRUNCATE {table} CASCADE",
        "LOCK": f"LOCK TABLE {table} IN EXCLUSIVE MODE",
        "ALTER": f"ALTER TABLE {table} DISABLE TRIGGER USER",
        "TRIGGER": f"CREATE TRIGGER t AFTER INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP": f"DROP TABLE {table}",
    }


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_changes_a_table_of_the_books_past_the_functions(
    service: Service, database: str, pool: asyncpg.Pool
) -> None:
    tables = await tables_of(pool, "billing")
    assert set(tables) == BOOKS | {table for table, _ in BESIDE_THE_BOOKS}
    async with connected(database, service) as connection:
        allowed = {
            (table, kind)
            for table, column in tables.items()
            for kind, statement in changes(f"billing.{table}", column).items()
            if not await refused(connection, statement)
        }
    # What may be written to may also be locked.
    allowed = {(table, kind) for table, kind in allowed if kind != "LOCK" or table in BOOKS}
    assert allowed == {each for each, who in BESIDE_THE_BOOKS.items() if who is service}


async def test_the_sink_changes_of_a_batch_what_its_provider_has_and_says_and_that_it_is_over(database: str) -> None:
    async with connected(database, Service.BILLING_SINK) as connection:
        assert not await refused(
            connection,
            """
            UPDATE billing.batches
            SET sent_file_id = 'f', upstream_id = 'b', said = '{}', ended_at = now(), input_removed_at = now()
            """,
        )
        for column in ("batch_id", "org_id", "mode", "provider"):
            assert await refused(connection, f"UPDATE billing.batches SET {column} = {column}")


async def test_the_sink_writes_a_quarantined_line_but_not_when_it_came_nor_anything_about_it_later(
    database: str,
) -> None:
    columns, line = "spool_id, byte_offset, reason, line", "'s', 0, 'r', ''"
    async with connected(database, Service.BILLING_SINK) as connection:
        await connection.execute(f"INSERT INTO billing.quarantine ({columns}) VALUES ({line})")
        assert await refused(
            connection,
            f"INSERT INTO billing.quarantine ({columns}, quarantined_at) VALUES ({line}, now())",
        )
        assert await refused(connection, "UPDATE billing.quarantine SET share_nano_usd = 1")


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_makes_or_changes_what_others_run_or_rely_on(service: Service, database: str) -> None:
    async with connected(database, service) as connection:
        assert [each for each in FORBIDDEN if not await refused(connection, each)] == []


async def test_ext_authz_reads_no_secret_and_nothing_of_people_or_the_books(database: str, pool: asyncpg.Pool) -> None:
    async with connected(database, Service.EXT_AUTHZ) as connection:
        readable = {
            f"{schema}.{table}"
            for schema in ("accounts", "billing", "catalog", "payments")
            for table in await tables_of(pool, schema)
            if not await refused(connection, f"SELECT * FROM {schema}.{table}")
        }
        assert readable == {
            *("accounts.key_changes", "accounts.live_authorizers"),
            *("catalog.models", "catalog.model_aliases", "catalog.prices", "catalog.revisions"),
            *("catalog.routes", "catalog.served", "catalog.terms", "catalog.term_prices"),
            *("catalog.own_key_changes", "catalog.own_key_fees"),
        }
        assert await refused(connection, "SELECT credential FROM catalog.own_keys")
        assert not await refused(connection, "SELECT org_id, provider, fallback FROM catalog.own_keys")
        assert await refused(connection, "SELECT credential FROM catalog.providers")
        assert not await refused(connection, "SELECT name, kind FROM catalog.providers")


async def test_the_sink_reads_the_books_and_what_they_are_priced_by(database: str, pool: asyncpg.Pool) -> None:
    async with connected(database, Service.BILLING_SINK) as connection:
        readable = {
            f"{schema}.{table}"
            for schema in ("accounts", "catalog", "payments")
            for table in await tables_of(pool, schema)
            if not await refused(connection, f"SELECT * FROM {schema}.{table}")
        }
    assert readable == {
        *("catalog.prices", "catalog.revisions", "catalog.terms", "catalog.term_prices", "catalog.own_key_fees"),
        *("catalog.models", "catalog.model_aliases", "catalog.routes", "catalog.served", "catalog.provider_states"),
    }


def functions_called_in(*places: str) -> set[str]:
    """Names of SQL functions that the code in some packages and modules calls."""
    modules = {
        path
        for place in places
        for path in ((ROOT / place).rglob("*postgres_*.py") if "." not in place else [ROOT / place])
    }
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    return set(re.findall(r"(?:SELECT|FROM|JOIN)\s+((?:billing|accounts)\.[a-z_]+)\(", source))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_may_call_what_it_calls(service: Service, pool: asyncpg.Pool) -> None:
    called = functions_called_in(*CALLED_IN[service])
    assert called
    allowed = await pool.fetch(
        """
        SELECT p.oid::regproc::text AS name FROM pg_proc p
        WHERE p.pronamespace = ANY ('{billing,accounts}'::regnamespace[]) AND has_function_privilege($1, p.oid, 'EXECUTE')
        """,
        database_role(service),
    )
    assert called <= {row["name"] for row in allowed}


def test_what_services_share_is_asked_about_with_each_that_calls_by_it() -> None:
    shared = {place for places in CALLED_IN.values() for place in places if place.startswith("gateway_core/")}
    assert functions_called_in(*shared) == functions_called_in("gateway_core")


async def test_nothing_in_our_schemas_is_open_to_everybody(pool: asyncpg.Pool) -> None:
    found = await pool.fetch(
        """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = ANY ('{billing,accounts,catalog,payments}'::regnamespace[])
          AND has_function_privilege('public', oid, 'EXECUTE')
        UNION ALL
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = ANY ('{billing,accounts,catalog,payments}'::regnamespace[]) AND relkind IN ('r', 'v')
          AND has_any_column_privilege('public', oid, 'SELECT, INSERT, UPDATE')
        """
    )
    assert found == []


async def test_what_writes_to_the_books_looks_for_names_nowhere_else(pool: asyncpg.Pool) -> None:
    rows = await pool.fetch(
        """
        SELECT oid::regprocedure::text AS name, prosecdef, proconfig FROM pg_proc
        WHERE pronamespace = 'billing'::regnamespace AND provolatile = 'v' AND prorettype <> 'trigger'::regtype
        """
    )
    assert rows
    for row in rows:
        assert row["prosecdef"], row["name"]
        assert [each for each in row["proconfig"] if each.startswith("search_path")] == [
            "search_path=pg_catalog, pg_temp"
        ], row["name"]


async def test_a_function_is_not_led_astray_by_its_callers_search_path(database: str, pool: asyncpg.Pool) -> None:
    await pool.execute(
        """
        CREATE SCHEMA trap;
        CREATE FUNCTION trap.hashtext(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$;
        GRANT USAGE ON SCHEMA trap TO PUBLIC
        """
    )
    async with connected(database, Service.BILLING_SINK) as connection:
        await connection.execute("SET search_path = trap, pg_catalog")
        assert await connection.fetch("SELECT billing.settle('[]')") == []


async def test_the_table_that_a_batch_is_settled_in_is_not_its_callers(database: str) -> None:
    async with connected(database, Service.BILLING_SINK) as connection:
        for _ in range(2):
            assert await connection.fetch("SELECT billing.settle('[]')") == []
        for table in ("settling_asked", "settling_decided"):
            for statement in (
                f"CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                f"INSERT INTO {table} DEFAULT VALUES",
                f"DROP TABLE {table}",
            ):
                assert await refused(connection, statement)


async def test_rights_that_somebody_gave_by_hand_are_gone_when_they_are_applied_anew(
    database: str, pool: asyncpg.Pool
) -> None:
    role = database_role(Service.EXT_AUTHZ)
    await pool.execute(f"GRANT ALL ON billing.entries TO {role}; GRANT SELECT (email) ON accounts.users TO {role}")
    connection = await asyncpg.connect(database)
    try:
        for service, folder in MIGRATIONS.items():
            changed = f"{read_functions(folder)}\n-- another text"
            assert await migrate(connection, service, read_migrations(folder), changed) == ["functions"]
    finally:
        await connection.close()
    async with connected(database, Service.EXT_AUTHZ) as session:
        assert await refused(session, "SELECT * FROM billing.entries")
        assert await refused(session, "SELECT email FROM accounts.users")
