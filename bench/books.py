"""Books for a benchmark: a catalogue, organisations with money, holds, and a ledger that already has rows."""

import random
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import asyncpg

from gateway_core.migrate import migrate, read_functions, read_migrations
from tests.support.spool_lines import GRANT, MESSAGES, REQUEST, Json, chat_stream, line, messages_stream, refused

ROOT: Final = Path(__file__).parents[1]
CHAT_MODELS: Final = 12
MESSAGES_MODELS: Final = 4
_BALANCE: Final = 10**13
_HOLD: Final = 9_840_450
_SLICE_PPM: Final = 20_000
_AT_ONCE: Final = 100
"""More updates of one row in a transaction get slower and slower: none of its versions can be cleaned up."""
_ROWS_AT_ONCE: Final = 100_000

_FILL = """
    INSERT INTO billing.requests (
        request_id, input_hash, mode, outcome, usage_source, org_id, project_id, key_id, endpoint, model, provider,
        price_version, stream, status, response_flags, response_details, attempts, user_agent, started_at, duration_ms,
        first_byte_ms, bytes_received, bytes_sent, sse_events, meters, cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw)
    SELECT id, sha256(id::bytea), 'live', 'settled', 'provider', org, 'prj_demo', 'key_demo', 'chat', 'chat-1', 'openai',
        1, false, 200, '-', 'via_upstream', 1, 'curl/7.88.1', now() - interval '1 day', 3,
        2, 67, 697, 0, '{"input": 5, "output": 18}', 2, 2, 0, '["{\\"prompt_tokens\\":5,\\"completion_tokens\\":18}"]'
    FROM filling;
    INSERT INTO billing.holds (request_id, account_id, key_id, amount_nano_usd, state, expires_at, finished_at)
    SELECT id, account_id, 'key_demo', 3, 'settled', now(), now() FROM filling;
    WITH posted AS (
        INSERT INTO billing.transactions (kind, request_id, mode) SELECT 'usage', id, 'live' FROM filling
        RETURNING transaction_id, request_id
    )
    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT p.transaction_id, side.account_id, side.amount, 'live'
    FROM posted p JOIN filling f ON f.id = p.request_id
    CROSS JOIN LATERAL (VALUES (f.account_id, -2), (f.revenue_id, 2)) side (account_id, amount);
"""


class PaidBy(StrEnum):
    """What money is set aside in: a slice for many requests, as usual, or a hold for each, as near the end of the money."""

    SLICE = "a slice"
    HOLD = "a hold each"


async def open_books(database: asyncpg.Connection, *, orgs: int) -> None:
    """An empty database becomes one with a catalogue and organisations with money."""
    folders = {
        "billing_sink": ROOT / "billing_sink" / "migrations" / "postgres",
        "control_plane": ROOT / "control_plane" / "migrations",
    }
    for service, folder in folders.items():
        await migrate(database, service, read_migrations(folder), read_functions(folder))
    await database.execute(
        "INSERT INTO catalog.providers (name, kind, base_url)"
        " VALUES ('openai', 'openai', 'http://o'), ('anthropic', 'anthropic', 'http://a')"
    )
    for prefix, provider, count in (("chat", "openai", CHAT_MODELS), ("messages", "anthropic", MESSAGES_MODELS)):
        names = [(f"{prefix}-{number}",) for number in range(count)]
        await database.executemany("INSERT INTO catalog.models VALUES ($1, 'bench', 128000, 4096)", names)
        await database.executemany(f"INSERT INTO catalog.deployments VALUES ($1, '{provider}', 'x')", names)  # noqa: S608 - ours
    await database.execute(
        """
        INSERT INTO catalog.prices (model, provider, meter, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
        SELECT model, provider, meter, 100000, 150000 FROM catalog.deployments,
            unnest(ARRAY['input', 'cached_input', 'output', 'reasoning']) meter
        """
    )
    await _add_orgs(database, orgs)


async def _add_orgs(database: asyncpg.Connection, orgs: int) -> None:
    for first in range(0, orgs, _AT_ONCE):
        await database.execute(
            """
            SELECT billing.open_balance(org), billing.credit(org, $3, 'bench')
            FROM (SELECT 'org_' || n AS org FROM generate_series($1::int, $2::int) n) o
            """,
            first,
            min(first + _AT_ONCE, orgs) - 1,
            _BALANCE,
        )
        # The functions of this session have plans for a table that was empty.
        await database.execute("ANALYZE billing.accounts")


async def fill(database: asyncpg.Connection, *, rows: int) -> None:
    """A ledger that already has so many finished requests, with all that belongs to them, spread evenly over the organisations.

    Their ids are spread evenly, too, and written in order, so that indexes grow at one end only; ids of later requests fall anywhere
    between them.
    """
    # What a statement has written is kept in memory for its triggers.
    await database.execute("SET synchronous_commit = off; SET work_mem = '256MB'")
    for first in range(0, rows, _ROWS_AT_ONCE):
        async with database.transaction():
            await database.execute(
                f"""
                CREATE TEMPORARY TABLE filling ON COMMIT DROP AS
                SELECT lpad(to_hex(n * 4294967296 / {rows}), 8, '0') || substr(gen_random_uuid()::text, 9) AS id,
                       o.orgs[1 + n % o.count] AS org, o.accounts[1 + n % o.count] AS account_id,
                       (SELECT account_id FROM billing.accounts WHERE kind = 'revenue' AND mode = 'live') AS revenue_id
                FROM generate_series({first}::bigint, {min(first + _ROWS_AT_ONCE, rows) - 1}) n,
                    (SELECT array_agg(org_id) AS orgs, array_agg(account_id) AS accounts, count(*)
                     FROM billing.accounts WHERE kind = 'balance' AND mode = 'live') o
                ORDER BY n
                """  # noqa: S608 - numbers of ours
            )
            await database.execute("ANALYZE filling")
            await database.execute(_FILL)
    await database.execute("RESET synchronous_commit; RESET work_mem")
    tables = ("accounts", "requests", "transactions", "entries", "holds", "spending")
    await database.execute(f"VACUUM ANALYZE {', '.join(f'billing.{table}' for table in tables)}")


def finished(request_id: str, rng: random.Random, *, orgs: int, price_version: int) -> Json:
    """A request of one of several kinds, by one of so many organisations: most of them settled, some estimated or refused."""
    grant = {
        **GRANT,
        "hold_nano_usd": str(_HOLD),
        "org_id": f"org_{rng.randrange(orgs)}",
        "price_version": price_version,
    }
    chat = {**REQUEST, "model": f"chat-{rng.randrange(CHAT_MODELS)}"}
    messages = {**MESSAGES, "model": f"messages-{rng.randrange(MESSAGES_MODELS)}", "stream": True}
    usage = {
        "prompt_tokens": rng.randrange(1, 20_000),
        "completion_tokens": rng.randrange(1, 2000),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    kind = rng.random()
    if kind < 0.4:  # noqa: PLR2004 - shares of a mix
        return line(request_id, grant=grant, request=chat, usage_first=usage, service_tier="default")
    if kind < 0.7:  # noqa: PLR2004 - shares of a mix
        streamed = {**chat, "stream": True, "hide_usage": True}
        return chat_stream(request_id, grant=grant, request=streamed, usage_first=usage, service_tier="default")
    if kind < 0.85:  # noqa: PLR2004 - shares of a mix
        return messages_stream(request_id, grant=grant, request=messages)
    if kind < 0.9:  # noqa: PLR2004 - shares of a mix
        return messages_stream(request_id, grant=grant, request=messages, usage_last=None)
    if kind < 0.95:  # noqa: PLR2004 - shares of a mix
        return line(request_id, grant=grant, request=chat, usage_first=None, status=503)
    return refused(request_id)


async def set_aside(database: asyncpg.Connection, lines: Sequence[Json], paid_by: PaidBy, *, seed: int) -> None:
    """What pays for each request that was admitted; where that is a slice, its grant says so."""
    grants = [(line, line["grant"]) for line in lines]
    paying = [(line, grant) for line, grant in grants if isinstance(grant, dict) and "hold_nano_usd" in grant]
    if paid_by is PaidBy.SLICE:
        for _, grant in paying:
            grant["slice_id"] = f"slice_{seed}_{grant['org_id']}"
        opened = sorted({(grant["slice_id"], grant["org_id"], _SLICE_PPM) for _, grant in paying})
        for first in range(0, len(opened), _AT_ONCE):
            await database.executemany(
                "SELECT billing.open_slice($1, $2, 'live', 'bench', $3, 1, 'infinity')",
                opened[first : first + _AT_ONCE],
            )
        return
    admitted = [(line["request_id"], grant["org_id"], _HOLD) for line, grant in paying]
    for first in range(0, len(admitted), _AT_ONCE):
        await database.executemany(
            "SELECT billing.place_hold($1, $2, 'key_demo', $3, 'infinity')", admitted[first : first + _AT_ONCE]
        )
