"""`python -m control_plane [serve|migrate|seed-demo|reseal]`."""

import secrets
import sys
from pathlib import Path

import asyncpg

from control_plane.postgres_reseal import reseal
from control_plane.sealing import Seal
from control_plane.settings import SealingSettings, SeedSettings, Settings
from gateway_core.logs import configure
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.settings import ServiceSettings
from gateway_core.tasks import run_command, run_until_stopped

MIGRATIONS = Path(__file__).parent / "migrations"


async def _serve() -> None:
    from control_plane.app import serve  # noqa: PLC0415 - Envoy's API takes half a second to import; migrate needs none

    settings = Settings.load()
    log = configure("control_plane", settings.log_level)
    await run_until_stopped(lambda: serve(settings, log))


async def _migrate() -> None:
    settings = ServiceSettings.load()
    log = configure("control_plane", settings.log_level)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        migrations, functions = read_migrations(MIGRATIONS), read_functions(MIGRATIONS)
        log.info("migrated", applied=await migrate(connection, "control_plane", migrations, functions))
    finally:
        await connection.close()


async def _seed_demo() -> None:
    from control_plane.demo import seed  # noqa: PLC0415 - only this command needs it

    settings = SeedSettings.load()
    log = configure("control_plane", settings.log_level)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        await seed(connection, settings)
        log.info("demo_seeded")
    finally:
        await connection.close()


async def _reseal() -> None:
    settings = SealingSettings.load()
    log = configure("control_plane", settings.log_level)
    seal = Seal(settings.credential_key, secrets.token_bytes, before=settings.credential_keys_before)
    dsn = settings.postgres_dsn.get_secret_value()
    resealed = (await reseal(dsn, seal, log)).resealed
    # What a second look finds has been written in between, by somebody who does not have the current key yet.
    left = await reseal(dsn, seal, log)
    log.info("reseal_finished", values=resealed + left.resealed, unreadable=left.unreadable)
    if left.resealed:
        sys.exit("Somebody still seals under an older key. Give every service the current one, then run this again.")
    if left.unreadable:
        sys.exit(
            "Some values open with none of the keys. Name the key that is missing, or write anew what is listed above."
        )
    print("Everything is sealed under TOLLGATE_CREDENTIAL_KEY. TOLLGATE_CREDENTIAL_KEYS_BEFORE can be dropped.")


def main() -> None:
    """Run the command named on the command line; `serve` when none is."""
    run_command("control_plane", {"serve": _serve, "migrate": _migrate, "seed-demo": _seed_demo, "reseal": _reseal})


if __name__ == "__main__":
    main()
