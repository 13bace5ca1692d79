"""ClickHouse, over HTTP: connecting, its migrations, and inserting."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from billing_sink.hourly import Hours, Sums
from gateway_core.migrate import missing_migrations, read_migrations

MIGRATIONS: Final = Path(__file__).parent / "migrations" / "clickhouse"


def connect(url: SecretStr) -> Client:
    """A client for the database in the URL. Blocking: call it and its methods in a thread.

    Raises:
        clickhouse_connect.driver.exceptions.Error, OSError: the server cannot be reached or refuses.
    """
    return clickhouse_connect.get_client(dsn=url.get_secret_value(), autogenerate_session_id=False)


def migrate(client: Client) -> list[str]:
    """Apply the migrations that are missing, and return their names. Each file holds one statement that can be repeated."""
    client.command(
        "CREATE TABLE IF NOT EXISTS tollgate_migrations (number UInt32, name String, checksum String)"
        " ENGINE = MergeTree ORDER BY number"
    )
    applied = {
        row[0]: str(row[1]) for row in client.query("SELECT number, checksum FROM tollgate_migrations").result_rows
    }
    missing = missing_migrations(applied, read_migrations(MIGRATIONS))
    for migration in missing:
        client.command(migration.sql)
        client.insert("tollgate_migrations", [[migration.number, migration.name, migration.checksum]])
    return [migration.name for migration in missing]


def hours(client: Client, since: datetime) -> Hours:
    """What requests came to that began since then."""
    found = client.query(
        """
        SELECT toStartOfHour(started_at) AS hour, mode, count(), sum(cost_nano_usd), sum(price_nano_usd), sum(absorbed_nano_usd)
        FROM requests FINAL WHERE started_at >= {since:DateTime64(3, 'UTC')} GROUP BY hour, mode
        """,
        parameters={"since": since},
        tz_mode="aware",
    )
    return {(hour.astimezone(UTC), str(mode)): Sums(*sums) for hour, mode, *sums in found.result_rows}


def insert(client: Client, table: str, lines: Sequence[str]) -> None:
    """Insert rows, each a JSON object that names the table's columns. A row inserted twice counts once."""
    client.raw_insert(table, insert_block="\n".join(lines), fmt="JSONEachRow", settings=_WRITTEN_BY_POSTGRES)


def empty(client: Client, table: str) -> None:
    """Remove all rows of a table, and keep whatever comes into it for now."""
    keep(client, table, None)
    client.command(f"TRUNCATE TABLE {table}")


def keep(client: Client, table: str, days: int | None) -> None:
    """Have ClickHouse remove what began longer ago than so many days, some time after it may; None: nothing."""
    wanted = None if days is None else f"toDateTime({_BEGINS[table]}) + toIntervalDay({days})"
    [[now]] = client.query(
        "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
        parameters={"table": table},
    ).result_rows
    if wanted is None and " TTL " in now:
        client.command(f"ALTER TABLE {table} REMOVE TTL")
    elif wanted is not None and f" TTL {wanted}" not in now:
        client.command(f"ALTER TABLE {table} MODIFY TTL {wanted}")


_BEGINS: Final = {
    "requests": "started_at",
    "attempts": "started_at",
    "provider_health": "since",
    "audit": "at",
    "requests_by_minute": "starts_at",
    "requests_by_hour": "starts_at",
    "requests_by_day": "starts_at",
}
"""The column of each table that says when what is in a row began."""

_WRITTEN_BY_POSTGRES: Final = {
    "date_time_input_format": "best_effort",
    "input_format_skip_unknown_fields": 0,
    "input_format_null_as_default": 0,
}
"""How ClickHouse reads: times of ISO 8601, and nothing silently left out."""
