"""`python -m billing_sink [serve|migrate|mend]`."""

from dataclasses import asdict
from pathlib import Path

import asyncpg

from billing_sink import clickhouse
from billing_sink.app import serve
from billing_sink.postgres_books import mend_held
from billing_sink.settings import MigrationSettings, Settings
from gateway_core.logs import configure
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.tasks import run_command, run_until_stopped

POSTGRES_MIGRATIONS = Path(__file__).parent / "migrations" / "postgres"


async def _serve() -> None:
    settings = Settings.load()
    log = configure("billing_sink", settings.log_level)
    await run_until_stopped(lambda: serve(settings, log))


async def _migrate() -> None:
    settings = MigrationSettings.load()
    log = configure("billing_sink", settings.log_level)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        migrations, functions = read_migrations(POSTGRES_MIGRATIONS), read_functions(POSTGRES_MIGRATIONS)
        applied = await migrate(connection, "billing_sink", migrations, functions)
    finally:
        await connection.close()
    client = clickhouse.connect(settings.clickhouse_url)
    log.info("migrated", postgres=applied, clickhouse=clickhouse.migrate(client))


async def _mend() -> None:
    """Free what balances hold for nobody, and tell of which balances. For a person who knows why it came to be."""
    settings = MigrationSettings.load()
    log = configure("billing_sink", settings.log_level)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        for each in await mend_held(connection):
            log.warning("held_mended", **asdict(each))
    finally:
        await connection.close()
    log.info("mended")


def main() -> None:
    """Run the command named on the command line; `serve` when none is."""
    run_command("billing_sink", {"serve": _serve, "migrate": _migrate, "mend": _mend})


if __name__ == "__main__":
    main()
