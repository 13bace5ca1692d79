"""The story of somebody who wants to see something in the charts: `tollgate demo traffic`, and what it leaves in the ledger and in ClickHouse."""

from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import clickhouse_connect
import pytest

from gateway_core.endpoints import Endpoint
from tests.support.command_line import CommandLine
from tests.support.stack import Stack
from tollgate.traffic.mix import ASSISTANT, MIX, Story
from tollgate.traffic.plan import plan
from tollgate.traffic.tenants import TENANTS, apps

SEED = 1
"""With which the assistant's first provider fails, and another one then answers."""
NAMES = [tenant.name for tenant in TENANTS]


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, {"TOLLGATE_DATA_DIR": str(stack.data_dir)})


async def last_row(stack: Stack) -> int:
    await stack.settled()
    async with stack.database() as database:
        found: int = await database.fetchval("SELECT coalesce(max(seq), 0) FROM billing.requests")
        return found


async def rows_behind(stack: Stack, seq: int) -> list[asyncpg.Record]:
    """All rows that were written since, once there will be no more."""
    await stack.settled()
    async with stack.database() as database:
        return await database.fetch("SELECT * FROM billing.requests WHERE seq > $1", seq)


async def accounts(stack: Stack) -> list[tuple[str, str]]:
    """Organisations and keys of the traffic, and of nobody else."""
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT o.name AS org, k.name AS key FROM accounts.organizations o JOIN accounts.api_keys k USING (org_id)"
            " WHERE o.name = ANY($1) ORDER BY 1, 2",
            NAMES,
        )
    return [(row["org"], row["key"]) for row in rows]


async def test_rows_of_every_kind_are_in_the_ledger_and_in_clickhouse(stack: Stack, shell: CommandLine) -> None:
    before = await last_row(stack)
    ran = await shell.done("demo", "traffic", "--seconds", "5", "--rate", "20", "--seed", str(SEED))
    slots = plan(SEED, 5, 20)
    assert f"{len(slots)} requests of {', '.join(NAMES)}" in ran.out
    told = {slot.activity.story for slot in slots}
    assert told >= set(Story) - {Story.OUTAGE}
    assert all(story.value in ran.out for story in told)

    rows = await rows_behind(stack, before)
    # Of who leaves at once the gateway may have heard nothing.
    impatient = sum(slot.activity.story is Story.IMPATIENT for slot in slots)
    assert len(slots) - impatient <= len(rows) <= len(slots), ran.out
    by_id = {row["request_id"]: row for row in rows}
    assert {row["outcome"] for row in rows} == {"settled", "released", "estimated", "refused", "free"}
    assert {(row["status"], row["error_code"]) for row in rows} >= {
        (400, "invalid_json"),
        (401, "invalid_api_key"),
        (402, "insufficient_quota"),
        (404, "model_not_found"),
        (429, "rate_limit_exceeded"),
    }
    settled = [row for row in rows if row["outcome"] == "settled"]
    assert {row["endpoint"] for row in settled} >= {activity.endpoint for activity in MIX} - {Endpoint.MODERATIONS}
    assert {row["provider"] for row in settled} >= {"openai", "anthropic", "gemini"}
    assert {row["mode"] for row in settled} == {"live", "test"}
    assert {row["stream"] for row in settled} == {True, False}
    assert {row["cached"] for row in rows} == {True, False}
    assert sum(row["price_nano_usd"] for row in settled) > sum(row["cost_nano_usd"] for row in settled) > 0
    moved = [row for row in settled if row["model"] == ASSISTANT and row["attempts"] > 1]
    assert moved
    async with stack.database() as database:
        failed = await database.fetch("SELECT * FROM billing.attempts WHERE request_id = ANY($1)", list(by_id))
        assert await database.fetch("SELECT * FROM billing.check_books() WHERE wrong > 0") == []
        assert await database.fetch("SELECT * FROM billing.quarantine WHERE request_id = ANY($1)", list(by_id)) == []
    assert {row["request_id"] for row in failed} >= {row["request_id"] for row in moved}

    ids = ", ".join(f"'{request_id}'" for request_id in by_id)
    await stack.clickhouse_count(f"request_id IN ({ids})", expected=len(rows))
    copied = in_clickhouse(stack, f"SELECT * FROM requests FINAL WHERE request_id IN ({ids})")
    kinds = ("outcome", "status", "endpoint", "model", "provider", "mode", "cached", "stream", "attempts")
    assert Counter(kind_of(row, kinds) for row in copied) == Counter(kind_of(row, kinds) for row in rows)
    assert {tag for row in copied if row["org_id"] for tag in row["tags"]} == {"project", "feature", "stage", "user"}
    assert {row["client"] for row in copied} >= {"OpenAI/Python", "Anthropic/Python", "OpenAI/JS", "curl"}


def in_clickhouse(stack: Stack, query: str) -> list[dict[str, Any]]:
    with clickhouse_connect.get_client(dsn=stack.endpoints["clickhouse_url"]) as client:
        return list(client.query(query).named_results())


def kind_of(row: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """What both stores say of a request; nothing is NULL in one and empty in the other."""
    return tuple(str(row[name] or "") for name in names)


async def test_a_second_run_finds_what_the_first_one_made(stack: Stack, shell: CommandLine) -> None:
    run = ("demo", "traffic", "--seconds", "1", "--rate", "1")
    await shell.done(*run)
    made = await accounts(stack)
    assert len(made) == len(list(apps()))
    assert {org for org, _ in made} == set(NAMES)
    ran = await shell.done(*run)
    assert "answered whole" in ran.out
    assert await accounts(stack) == made


async def test_nothing_is_sent_where_a_provider_is_a_real_one(stack: Stack, shell: CommandLine) -> None:
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    url = f"{stack.endpoints['control_plane_url']}/api/v1"
    other = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "credential": "sk-real"}
    async with aiohttp.ClientSession(headers=operator) as session:
        await done(session, "PUT", f"{url}/providers/demo-traffic-real", other)
        named = {"upstream_model": "gpt-4o"}
        await done(session, "PUT", f"{url}/deployments/gpt-4o/demo-traffic-real", named)
        try:
            before = await last_row(stack)
            refused = await shell.run("demo", "traffic", "--seconds", "1", "--rate", "1")
            assert (refused.code, refused.out) == (1, "")
            assert "the simulator does not stand in for demo-traffic-real here" in refused.err
            assert await rows_behind(stack, before) == []
        finally:
            await done(session, "DELETE", f"{url}/deployments/gpt-4o/demo-traffic-real")
            await done(session, "DELETE", f"{url}/providers/demo-traffic-real")


async def done(session: aiohttp.ClientSession, method: str, url: str, body: object = None) -> None:
    headers = {"If-Match": "*"} if method == "DELETE" else {}
    async with session.request(method, url, json=body, headers=headers) as answer:
        assert answer.status == 202, await answer.text()
