"""A change of the installation's key on a real Postgres: every sealed value, while services run."""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from control_plane.accounts.postgres_signing import AccessTokens, Claims
from control_plane.api.postgres_idempotency import Claim, IdempotentAnswer
from control_plane.catalog.postgres_store import read_catalog
from control_plane.postgres_reseal import COLUMNS, Pass, reseal
from control_plane.sealing import Seal, UnreadableSealError, provider_credential, webhook_secret
from gateway_core.clock import utc_now
from gateway_core.ids import ProviderName
from gateway_core.migrate import migrate, read_functions, read_migrations
from tests.support.databases import MIGRATIONS
from tests.support.logs import QUIET

OPENAI, GEMINI = ProviderName("openai"), ProviderName("gemini")
OLD, NEW, LOST = (SecretStr(urlsafe_b64encode(bytes([byte]) * 32).decode()) for byte in (1, 2, 3))
OLD_SEAL, NEW_SEAL, LOST_SEAL = (Seal(key, secrets.token_bytes) for key in (OLD, NEW, LOST))
BOTH = Seal(NEW, secrets.token_bytes, before=OLD)
ANSWER = IdempotentAnswer(201, {"ETag": '"1"'}, b'{"key": "sk-tg-live-secret"}')


def claim(key: str) -> Claim:
    return Claim.of(caller="user/usr_1", key=key, method="POST", target="/", if_match="", body=b"")


def access_tokens(pool: asyncpg.Pool, seal: Seal) -> AccessTokens:
    return AccessTokens(pool, seal, utc_now, secrets.token_bytes, QUIET, rotate_after=timedelta(days=30))


async def add_provider(pool: asyncpg.Pool, name: ProviderName, seal: Seal = OLD_SEAL) -> None:
    await pool.execute(
        "INSERT INTO catalog.providers (name, kind, base_url, credential) VALUES ($1, 'openai', 'https://x/v1', $2)",
        *(name, seal.seal_secret(provider_credential(name), SecretStr(f"sk-{name}"))),
    )


async def keep_answer(pool: asyncpg.Pool, key: str, seal: Seal = OLD_SEAL) -> None:
    async with pool.acquire() as connection, connection.transaction():
        assert await claim(key).take(connection, seal) is None
        await claim(key).keep(connection, seal, ANSWER)


async def revision(pool: asyncpg.Pool) -> int:
    newest: int = await pool.fetchval("SELECT max(revision) FROM catalog.revisions")
    return newest


async def credentials(pool: asyncpg.Pool, seal: Seal) -> dict[str, str]:
    catalog = await read_catalog(pool, seal, QUIET)
    return {
        name: provider.credential.get_secret_value()
        for name, provider in catalog.providers.items()
        if provider.credential
    }


async def test_after_a_reseal_the_new_key_alone_opens_everything(pool: asyncpg.Pool, database: str) -> None:
    for name in (OPENAI, GEMINI):
        await add_provider(pool, name)
    token = await access_tokens(pool, OLD_SEAL).issue(Claims("usr_1", "ses_1"))
    for number in range(3):
        await keep_answer(pool, str(number))
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=6, unreadable=0)
    assert await credentials(pool, NEW_SEAL) == {"openai": "sk-openai", "gemini": "sk-gemini"}
    assert await access_tokens(pool, NEW_SEAL).check(token) == Claims("usr_1", "ses_1")
    assert await claim("2").take(pool, NEW_SEAL) == ANSWER
    assert await credentials(pool, OLD_SEAL) == {}
    # There is nothing left to do.
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=0, unreadable=0)


async def test_both_secrets_of_a_webhook_open_after_a_reseal(pool: asyncpg.Pool, database: str) -> None:
    await pool.execute("INSERT INTO accounts.organizations (org_id, name) VALUES ('org_1', 'Acme')")
    sealed = [OLD_SEAL.seal(webhook_secret("whk_1"), secret) for secret in (b"newer", b"older")]
    await pool.execute(
        """
        INSERT INTO payments.webhooks (webhook_id, org_id, url, event_types, is_enabled, sealed_secret,
            sealed_secret_before, secret_before_until) VALUES ('whk_1', 'org_1', 'https://x', '{}', true, $1, $2, now())
        """,
        *sealed,
    )
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=2, unreadable=0)
    row = await pool.fetchrow("SELECT sealed_secret, sealed_secret_before FROM payments.webhooks")
    assert row is not None
    assert [NEW_SEAL.open(webhook_secret("whk_1"), each) for each in row.values()] == [b"newer", b"older"]


async def test_what_is_sealed_under_the_current_key_is_not_touched(pool: asyncpg.Pool, database: str) -> None:
    await keep_answer(pool, "a", NEW_SEAL)
    before = await pool.fetchval("SELECT sealed_answer FROM accounts.idempotency_keys")
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=0, unreadable=0)
    assert await pool.fetchval("SELECT sealed_answer FROM accounts.idempotency_keys") == before


async def test_it_takes_as_many_batches_as_there_are(
    pool: asyncpg.Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.postgres_reseal.BATCH", 2)
    for number in range(5):
        await keep_answer(pool, str(number))
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=5, unreadable=0)


async def test_what_no_key_opens_stays_and_is_counted_and_the_rest_is_done(pool: asyncpg.Pool, database: str) -> None:
    await add_provider(pool, OPENAI, LOST_SEAL)
    await add_provider(pool, GEMINI)
    await pool.execute("UPDATE catalog.providers SET credential = credential || '\\x00' WHERE name = 'openai'")
    await pool.execute("DELETE FROM catalog.changes")
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=1, unreadable=1)
    assert await credentials(pool, NEW_SEAL) == {"gemini": "sk-gemini"}


async def test_a_reseal_is_no_change_of_the_catalogue(pool: asyncpg.Pool, database: str) -> None:
    await add_provider(pool, OPENAI)
    before = await revision(pool), await pool.fetchval("SELECT revision FROM catalog.providers")
    await reseal(database, BOTH, QUIET)
    assert (await revision(pool), await pool.fetchval("SELECT revision FROM catalog.providers")) == before
    assert await pool.fetchval("SELECT count(*) FROM catalog.changes") == 1
    # And the next real change is one again.
    await pool.execute("UPDATE catalog.providers SET base_url = 'https://y/v1'")
    assert await revision(pool) == before[0] + 1
    assert await pool.fetchval("SELECT revision FROM catalog.providers") == before[0] + 1


async def test_a_change_can_be_undone_after_a_reseal_and_what_comes_back_opens(
    pool: asyncpg.Pool, database: str
) -> None:
    await add_provider(pool, OPENAI)
    other = OLD_SEAL.seal_secret(provider_credential(OPENAI), SecretStr("sk-other"))
    await pool.execute("UPDATE catalog.providers SET credential = $1", other)
    changed = await revision(pool)
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=2, unreadable=0)
    assert await credentials(pool, NEW_SEAL) == {"openai": "sk-other"}
    await pool.execute("SELECT catalog.put_back($1)", changed)
    assert await credentials(pool, NEW_SEAL) == {"openai": "sk-openai"}


async def test_a_provider_that_is_gone_comes_back_readable(pool: asyncpg.Pool, database: str) -> None:
    await add_provider(pool, OPENAI)
    await pool.execute("DELETE FROM catalog.providers")
    assert await reseal(database, BOTH, QUIET) == Pass(resealed=1, unreadable=0)
    await pool.execute("SELECT catalog.put_back($1)", await revision(pool))
    assert await credentials(pool, NEW_SEAL) == {"openai": "sk-openai"}


async def test_a_credential_that_was_replaced_meanwhile_is_left_alone(pool: asyncpg.Pool) -> None:
    await add_provider(pool, OPENAI)
    old = await pool.fetchval("SELECT credential FROM catalog.providers")
    newer = NEW_SEAL.seal_secret(provider_credential(OPENAI), SecretStr("sk-newer"))
    await pool.execute("UPDATE catalog.providers SET credential = $1", newer)
    resealed = BOTH.reseal(provider_credential(OPENAI), old)
    await pool.execute("SELECT catalog.reseal_credential('openai', $1, $2)", old, resealed)
    assert await pool.fetchval("SELECT credential FROM catalog.providers") == newer
    # What would be put back is known under the new key now.
    await pool.execute("SELECT catalog.put_back($1)", await revision(pool))
    assert await pool.fetchval("SELECT credential FROM catalog.providers") == resealed


async def test_an_edit_that_is_going_on_is_waited_for_and_remembered_as_the_row(pool: asyncpg.Pool) -> None:
    await add_provider(pool, OPENAI)
    old = await pool.fetchval("SELECT credential FROM catalog.providers")
    new = BOTH.reseal(provider_credential(OPENAI), old)
    async with pool.acquire() as editor, pool.acquire() as resealer:
        edit = editor.transaction()
        await edit.start()
        await editor.execute("UPDATE catalog.providers SET base_url = 'https://y/v1'")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(resealer.execute("SELECT catalog.reseal_credential('openai', $1, $2)", old, new))
            while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.01)
            await edit.commit()
    assert await pool.fetchval("SELECT credential FROM catalog.providers") == new
    await pool.execute("SELECT catalog.put_back($1)", await revision(pool))
    assert await pool.fetchval("SELECT base_url FROM catalog.providers") == "https://x/v1"
    assert await pool.fetchval("SELECT credential FROM catalog.providers") == new


async def test_every_sealed_column_of_the_schemas_is_resealed(pool: asyncpg.Pool) -> None:
    rows = await pool.fetch("""
        SELECT concat_ws('.', table_schema, table_name, column_name) AS name
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema IN ('accounts', 'catalog', 'payments') AND data_type = 'bytea' AND table_type = 'BASE TABLE'
    """)
    sealed = {row["name"] for row in rows if not re.search(r"(_hash|\.public_key|\.payload)$", row["name"])}
    assert sealed == {column.column for column in COLUMNS}


async def test_a_signing_key_that_does_not_open_is_replaced_and_its_tokens_are_refused(pool: asyncpg.Pool) -> None:
    lost = access_tokens(pool, LOST_SEAL)
    token = await lost.issue(Claims("usr_1", "ses_1"))
    tokens = access_tokens(pool, NEW_SEAL)
    assert await tokens.check(token) is None
    assert await tokens.check(await tokens.issue(Claims("usr_2", "ses_2"))) == Claims("usr_2", "ses_2")
    assert len(await tokens.jwks()) == 1
    assert await pool.fetchval("SELECT count(*) FROM accounts.signing_keys") == 2
    # Another one that starts now finds the new key and makes none.
    await access_tokens(pool, NEW_SEAL).issue(Claims("usr_3", "ses_3"))
    assert await pool.fetchval("SELECT count(*) FROM accounts.signing_keys") == 2


async def test_an_answer_that_does_not_open_is_not_given_and_not_made_twice(pool: asyncpg.Pool) -> None:
    await keep_answer(pool, "a", LOST_SEAL)
    with pytest.raises(UnreadableSealError):
        await claim("a").take(pool, NEW_SEAL)


@pytest.fixture
async def one_layer(postgres_dsn: str) -> AsyncIterator[str]:
    """A database with the migrations before the one that brought two layers."""
    admin = await asyncpg.connect(postgres_dsn)
    name = f"test_{secrets.token_hex(6)}"
    await admin.execute(f"CREATE DATABASE {name}")
    dsn = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    connection = await asyncpg.connect(dsn)
    folder = read_migrations(MIGRATIONS["control_plane"])
    before = [migration.name.endswith("_two_layers.sql") for migration in folder].index(True)
    await migrate(connection, "billing_sink", read_migrations(MIGRATIONS["billing_sink"]), "")
    await migrate(connection, "control_plane", folder[:before], "")
    await connection.close()
    yield dsn
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_a_database_sealed_in_one_layer_is_migrated_to_one_that_starts(one_layer: str) -> None:
    async with asyncpg.create_pool(one_layer) as pool:
        await pool.execute("""
            INSERT INTO catalog.providers (name, kind, base_url, credential, managed_by) VALUES
                ('openai', 'openai', 'http://127.0.0.1:1/v1', 'of one layer', 'demo'),
                ('mine', 'openai', 'https://mine/v1', 'of one layer', 'operator');
            INSERT INTO accounts.signing_keys (kid, public_key, sealed_private)
                VALUES ('sig_1', decode(repeat('00', 32), 'hex'), 'of one layer');
            INSERT INTO accounts.idempotency_keys (caller, idempotency_key, request_hash, sealed_answer)
                VALUES ('user/usr_1', 'a', '', 'of one layer');
        """)
        async with pool.acquire() as connection:
            folder = MIGRATIONS["control_plane"]
            await migrate(connection, "control_plane", read_migrations(folder), read_functions(folder))  # type: ignore[arg-type]  # the pool's proxy of a connection
        assert set((await read_catalog(pool, NEW_SEAL, QUIET)).providers) == {"openai"}
        assert await access_tokens(pool, NEW_SEAL).issue(Claims("usr_1", "ses_1"))
        await keep_answer(pool, "a", NEW_SEAL)


def run_reseal(
    database: str, secrets_dir: Path, *, current: SecretStr, before: str = ""
) -> subprocess.CompletedProcess[str]:
    files = {"postgres_dsn": database, "credential_key": current.get_secret_value(), "credential_keys_before": before}
    for name, text in files.items():
        (secrets_dir / f"tollgate_{name}").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "control_plane", "reseal"],
        env={"PATH": os.environ["PATH"], "TOLLGATE_SECRETS_DIR": str(secrets_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_says_when_the_older_keys_can_be_dropped(
    pool: asyncpg.Pool, database: str, tmp_path: Path
) -> None:
    await add_provider(pool, OPENAI)
    await keep_answer(pool, "a")
    missing = run_reseal(database, tmp_path, current=NEW)
    assert missing.returncode == 1
    assert "none of the keys" in missing.stderr
    done = run_reseal(database, tmp_path, current=NEW, before=OLD.get_secret_value())
    assert done.returncode == 0, done.stderr
    assert "TOLLGATE_CREDENTIAL_KEYS_BEFORE can be dropped" in done.stdout
    assert json.loads(done.stderr.splitlines()[-1])["values"] == 2
    assert await credentials(pool, NEW_SEAL) == {"openai": "sk-openai"}
    for key in (OLD, NEW):
        assert key.get_secret_value() not in done.stdout + done.stderr + missing.stderr


async def test_the_command_refuses_a_malformed_key_by_the_name_of_its_setting(database: str, tmp_path: Path) -> None:
    refused = run_reseal(database, tmp_path, current=SecretStr("too-short"))
    assert refused.returncode == 1
    assert "TOLLGATE_CREDENTIAL_KEY: a key must be 32 bytes in URL-safe base64" in refused.stderr
    assert "too-short" not in refused.stderr
