"""ClickHouse, over HTTP: its migrations and the rows of `requests`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from gateway_core.migrate import missing_migrations, read_migrations

MIGRATIONS: Final = Path(__file__).parent / "migrations" / "clickhouse"

REQUEST_COLUMNS: Final = (
    "request_id",
    "started_at",
    "recorded_at",
    "outcome",
    "late",
    "usage_source",
    "org_id",
    "project_id",
    "key_id",
    "endpoint",
    "model",
    "provider",
    "stream",
    "status",
    "error_code",
    "attempts",
    "duration_ms",
    "first_byte_ms",
    "bytes_received",
    "bytes_sent",
    "sse_events",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "price_nano_usd",
    "absorbed_nano_usd",
    "client_request_id",
    "user_agent",
)


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


def insert_requests(client: Client, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows with the columns of `REQUEST_COLUMNS`. A row inserted twice counts once."""
    client.insert("requests", rows, column_names=REQUEST_COLUMNS)
