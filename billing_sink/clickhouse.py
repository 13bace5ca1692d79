"""ClickHouse, over HTTP: connecting, its migrations, and inserting."""

from collections.abc import Sequence
from datetime import UTC
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


def hours(client: Client) -> Hours:
    """What requests came to."""
    found = client.query(
        """
        SELECT toStartOfHour(started_at) AS hour, mode, count(), sum(cost_nano_usd), sum(price_nano_usd), sum(absorbed_nano_usd)
        FROM requests FINAL GROUP BY hour, mode
        """,
        tz_mode="aware",
    )
    return {(hour.astimezone(UTC), str(mode)): Sums(*sums) for hour, mode, *sums in found.result_rows}


def insert(client: Client, table: str, lines: Sequence[str]) -> None:
    """Insert rows, each a JSON object that names the table's columns. A row inserted twice counts once."""
    client.raw_insert(table, insert_block="\n".join(lines), fmt="JSONEachRow", settings=_WRITTEN_BY_POSTGRES)


_WRITTEN_BY_POSTGRES: Final = {
    "date_time_input_format": "best_effort",
    "input_format_skip_unknown_fields": 0,
    "input_format_null_as_default": 0,
}
"""How ClickHouse reads: times of ISO 8601, and nothing silently left out."""
