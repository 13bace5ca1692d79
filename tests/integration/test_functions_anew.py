"""Functions of a schema stand once, in files that are applied anew whenever one has changed."""

import asyncpg
import pytest

from gateway_core.migrate import Migration, migrate

TABLE = [Migration(1, "0001_table.sql", "CREATE SCHEMA s; CREATE TABLE s.t (n integer)")]
ONE, TWO = (f"CREATE OR REPLACE FUNCTION s.f() RETURNS integer LANGUAGE sql AS 'SELECT {n}'" for n in (1, 2))


async def test_functions_are_applied_after_the_migrations_and_again_only_when_they_change(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await migrate(connection, "s", TABLE, ONE) == ["0001_table.sql", "functions"]
        assert await migrate(connection, "s", TABLE, ONE) == []
        assert await connection.fetchval("SELECT s.f()") == 1
        assert await migrate(connection, "s", TABLE, TWO) == ["functions"]
        assert await connection.fetchval("SELECT s.f()") == 2
    finally:
        await connection.close()


async def test_functions_that_cannot_be_made_leave_everything_as_it_was(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        with pytest.raises(asyncpg.PostgresError):
            await migrate(connection, "s", TABLE, "CREATE FUNCTION s.f() RETURNS nothing LANGUAGE sql AS 'SELECT 1'")
        assert await connection.fetchval("SELECT to_regclass('s.t')") is None
    finally:
        await connection.close()
