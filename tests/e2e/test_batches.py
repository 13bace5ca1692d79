"""Batches with the official SDK: held for before the provider hears of them, charged line by line at the price of batches, and once, whoever dies."""

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import openai
import pytest
import pytest_asyncio
from openai.types import Batch

from gateway_core.contract import Peer
from gateway_core.mode import Mode
from gateway_core.route_keys import keepers_path
from tests.support.balky_keeper import BalkyKeeper, balky_keeper
from tests.support.command_line import CommandLine
from tests.support.planes import Certificates
from tests.support.stack import Stack, add_model, add_provider, eventually, running_stack, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL, STANDARD_ONLY = "batched", "not-batched"
METERS = ["input", "cached_input", "output", "reasoning"]
ENDPOINTS = ["chat", "responses", "embeddings"]
MAX_OUTPUT = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that looks at its batches often, and two models, one of which has a price for batches: half of the other one."""
    directory = tmp_path_factory.mktemp("batches") / "data"
    async with running_stack(directory, TOLLGATE_BATCHES_POLL_MS="100", TOLLGATE_PROVIDER_HEALTH="false") as running:
        for name in (MODEL, STANDARD_ONLY):
            await add_model(running, name, [("openai", f"{name}-upstream")], endpoints=ENDPOINTS, meters=METERS)
        await price_batches(running, MODEL)
        await wait_until_routed(running, MODEL)
        await wait_until_routed(running, STANDARD_ONLY)
        yield running


async def price_batches(stack: Stack, model: str) -> None:
    """Half of what the model costs otherwise."""
    async with stack.database() as database:
        await database.execute(
            """
            INSERT INTO catalog.prices (model, provider, meter, unit, condition, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
            SELECT model, provider, meter, unit, '{"service_tier": "batch"}', 250000, 500000 FROM catalog.prices WHERE model = $1
            """,
            model,
        )


class Customer(openai.AsyncOpenAI):
    """Somebody of an organisation of their own."""

    org_id: str


@asynccontextmanager
async def customer(stack: Stack, *, balance: str = "1.00", mode: Mode = Mode.LIVE) -> AsyncIterator[Customer]:
    name = f"batch-{secrets.token_hex(4)}"
    key = await stack.make_key(name, balance=balance, mode=mode)
    async with Customer(
        base_url=stack.endpoints["openai_base_url"],
        api_key=key,
        max_retries=0,
        default_headers={"x-tollgate-provider": "openai"},
    ) as created:
        created.org_id = f"org_{name}"
        yield created


def line(custom_id: str, said: str = "Hi", **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": said}], "max_tokens": 50, **more.pop("body", {})}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


async def send(client: openai.AsyncOpenAI, lines: Sequence[Mapping[str, Any]]) -> str:
    content = "".join(json.dumps(each) + "\n" for each in lines).encode()
    return (await client.files.create(file=("input.jsonl", io.BytesIO(content)), purpose="batch")).id


async def begin(client: openai.AsyncOpenAI, *lines: Mapping[str, Any], **more: Any) -> Batch:
    return await client.batches.create(
        input_file_id=await send(client, lines), endpoint="/v1/chat/completions", completion_window="24h", **more
    )


async def over(client: openai.AsyncOpenAI, batch: Batch, status: str = "completed") -> Batch:
    async def is_over() -> Batch | None:
        found = await client.batches.retrieve(batch.id)
        return found if found.status in {"completed", "failed", "cancelled", "expired"} else None

    found = await eventually(is_over, deadline_s=30)
    assert found.status == status, found
    return found


async def answers(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    text = (await client.files.content(file_id)).text
    return {found["custom_id"]: found for found in map(json.loads, text.splitlines())}


async def held(stack: Stack, org_id: str) -> int:
    async with stack.database() as database:
        found: int = await database.fetchval(
            "SELECT sum(held_nano_usd)::bigint FROM billing.accounts WHERE org_id = $1 AND kind = 'balance'", org_id
        )
    return found


async def rows_of(stack: Stack, batch: Batch) -> list[asyncpg.Record]:
    async with stack.database() as database:
        return await database.fetch(
            "SELECT * FROM billing.requests WHERE request_id LIKE $1 || '-%' ORDER BY request_id", batch.id
        )


async def upstream_batches(stack: Stack) -> int:
    return sum(each["path"] == "/v1/batches" and each["method"] == "POST" for each in await stack.provider_requests())


async def test_a_batch_is_held_for_read_and_charged_by_what_its_lines_used(stack: Stack) -> None:
    async with customer(stack) as client:
        await stack.forget_provider_requests()
        batch = await begin(
            client,
            line("one", "Rivers? [[sim output_tokens=9 latency_ms=1500]]"),
            line("two", "Lakes? [[sim output_tokens=5]]"),
            line("bad", "Seas? [[sim error=500]]"),
            metadata={"mine": "1"},
        )
        assert (batch.status, batch.metadata, batch.output_file_id) == ("in_progress", {"mine": "1"}, None)
        # No more than half a nano-USD for each byte of a body, and each of 50 tokens.
        worst = await held(stack, client.org_id)
        assert 3 * 25 < worst < 3 * (25 + 100)
        ended = await over(client, batch)
        assert await held(stack, client.org_id) == 0
        assert ended.request_counts is not None
        assert (ended.request_counts.completed, ended.request_counts.failed) == (2, 1)
        good, bad = await answers(client, ended.output_file_id), await answers(client, ended.error_file_id)
        assert (set(good), set(bad)) == ({"one", "two"}, {"bad"})
        rows = {row["client_request_id"]: row for row in await rows_of(stack, batch)}
        assert {name: row["outcome"] for name, row in rows.items()} == {
            "one": "settled",
            "two": "settled",
            "bad": "released",
        }
        for name, answer in good.items():
            tokens = answer["response"]["body"]["usage"]["total_tokens"]
            row = rows[name]
            # Half a nano-USD each, rounded half to even.
            assert row["price_nano_usd"] == round(tokens / 2)
            assert row["price_nano_usd"] <= row["hold_nano_usd"]
            assert (row["provider"], row["model"], row["upstream_model"]) == ("openai", MODEL, f"{MODEL}-upstream")
            assert answer["response"]["body"]["model"] == f"{MODEL}-upstream"
        async with stack.database() as database:
            spent = await database.fetchval(
                "SELECT 1000000000 - posted_nano_usd FROM billing.accounts WHERE org_id = $1 AND kind = 'balance' AND mode = 'live'",
                client.org_id,
            )
        assert spent == sum(row["price_nano_usd"] for row in rows.values())
        # The files are the organisation's like any other.
        assert {ended.output_file_id, ended.error_file_id} <= {each.id async for each in await client.files.list()}
        assert [each.id for each in (await client.batches.list()).data] == [batch.id]

        # What we sent in the place of the input is gone again, and the client's own is there.
        async def deletions() -> list[dict[str, Any]]:
            return [each for each in await stack.provider_requests() if each["method"] == "DELETE"]

        deleted = await eventually(deletions)
        assert len(deleted) == 1
        assert batch.input_file_id not in deleted[0]["path"]
        assert (await client.files.retrieve(batch.input_file_id)).purpose == "batch"


async def test_every_request_of_a_batch_has_its_receipt(stack: Stack) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("one"))
        await over(client, batch)
        [row] = await rows_of(stack, batch)
        operator = {"Authorization": f"Bearer {stack.secret('tollgate_operator_token')}"}
        api = f"{stack.endpoints['control_plane_url']}/api/v1"
        async with aiohttp.ClientSession(headers=operator) as session:
            for path in (f"requests/{row['request_id']}", f"receipts/{row['request_id']}"):
                async with session.get(f"{api}/{path}") as answer:
                    assert answer.status == 200, path


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings"])
async def test_other_endpoints_have_batches_too(stack: Stack, endpoint: str) -> None:
    async with customer(stack) as client:
        asked = {
            "custom_id": "one",
            "method": "POST",
            "url": endpoint,
            "body": {"model": MODEL, "input": "All the rivers"},
        }
        file_id = await send(client, [asked])
        batch = await client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")  # type: ignore[arg-type]
        await over(client, batch)
        [row] = await rows_of(stack, batch)
        assert (row["outcome"], row["usage_source"]) == ("settled", "provider")
        assert row["price_nano_usd"] > 0
        assert await held(stack, client.org_id) == 0


async def test_a_batch_is_its_organisations_alone_and_live_and_test_are_apart(stack: Stack) -> None:
    async with customer(stack) as owner:
        batch = await begin(owner, line("one", "[[sim latency_ms=1000]]"))
        for mode in Mode:
            async with customer(stack, mode=mode) as other:
                with pytest.raises(openai.NotFoundError):
                    await other.batches.retrieve(batch.id)
                with pytest.raises(openai.NotFoundError):
                    await other.batches.cancel(batch.id)
                with pytest.raises(openai.NotFoundError):
                    await other.batches.list(after=batch.id)
                with pytest.raises(openai.NotFoundError):
                    await other.batches.create(
                        input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
                    )
                assert (await other.batches.list()).data == []
        ended = await over(owner, batch)
        assert ended.output_file_id is not None
        async with customer(stack) as other:
            with pytest.raises(openai.NotFoundError):
                await other.files.content(ended.output_file_id)


async def test_a_batch_that_the_balance_does_not_cover_is_not_begun(stack: Stack) -> None:
    async with customer(stack, balance="0.000000100") as client:
        await stack.forget_provider_requests()
        with pytest.raises(openai.APIStatusError) as refused:
            await begin(client, *(line(str(number)) for number in range(5)))
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_quota")
        assert await upstream_batches(stack) == 0
        assert (await client.batches.list()).data == []
        # The cheaper one is.
        await over(client, await begin(client, line("one")))


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (line("a", body={"stream": True}), "stream_not_offered"),
        (line("a", body={"model": "unheard-of"}), "model_not_found"),
        (line("a", body={"model": STANDARD_ONLY}), "service_tier_not_offered"),
        (line("a", body={"service_tier": "priority"}), "service_tier_not_offered"),
        (line("a", body={"tools": [{"type": "web_search"}]}), "tool_not_offered"),
        (line("a", body={"max_tokens": 0}), "invalid_number"),
        (line("a", url="/v1/embeddings"), "invalid_input"),
        (line(""), "invalid_input"),
        ({"custom_id": "a"}, "invalid_json"),
        (line("first"), "invalid_batch"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_held(stack: Stack, bad: dict[str, Any], code: str) -> None:
    async with customer(stack) as client:
        await stack.forget_provider_requests()
        with pytest.raises(openai.BadRequestError, match="Line 2") as refused:
            await begin(client, line("first"), bad)
        assert refused.value.code == code
        assert len(refused.value.message) < 700
        assert await held(stack, client.org_id) == 0
        assert await upstream_batches(stack) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"endpoint": "/v1/moderations"},
        {"completion_window": "1h"},
        {"more": 1},
        {"metadata": {"a": 1}},
        {"input_file_id": "../x"},
    ],
)
async def test_what_a_batch_is_not_offered_with_is_refused(stack: Stack, body: dict[str, Any]) -> None:
    async with customer(stack) as client, aiohttp.ClientSession(stack.url) as session:
        asked = {
            "input_file_id": await send(client, [line("a")]),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        headers = {"Authorization": f"Bearer {client.api_key}"}
        async with session.post("/v1/batches", json=asked | body, headers=headers) as answer:
            assert answer.status == 400, await answer.text()
            assert (await answer.json())["error"]["code"] == "invalid_input"


async def test_a_batch_that_is_cancelled_settles_what_it_has_and_gives_the_rest_back(stack: Stack) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("done"), line("never", "[[sim error=timeout]]"))
        before = await held(stack, client.org_id)
        assert before > 0
        assert (await client.batches.cancel(batch.id)).status in {"cancelling", "cancelled"}
        ended = await over(client, batch, "cancelled")
        assert await held(stack, client.org_id) == 0
        assert set(await answers(client, ended.output_file_id)) == {"done"}
        outcomes = {row["client_request_id"]: row["outcome"] for row in await rows_of(stack, batch)}
        assert outcomes == {"done": "settled", "never": "released"}
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)


async def test_test_keys_have_batches_in_play_money(stack: Stack) -> None:
    async with customer(stack, mode=Mode.TEST) as client:
        batch = await begin(client, line("one"))
        await over(client, batch)
        [row] = await rows_of(stack, batch)
        assert (row["mode"], row["outcome"], row["provider"]) == ("test", "settled", "openai")


async def test_a_sink_that_is_killed_while_it_settles_leaves_nothing_out_and_posts_nothing_twice(stack: Stack) -> None:
    count = 5000
    async with customer(stack) as client:
        batch = await begin(
            client, *(line(str(number), f"[[sim output_tokens={number % 7 + 1}]]") for number in range(count))
        )

        async def is_between() -> bool:
            return 0 < len(await rows_of(stack, batch)) < count

        await eventually(is_between, deadline_s=20)
        stack.kill("billing_sink")
        assert await is_between(), "it was settled before it was killed"
        ended = await eventually_over(client, batch)
        rows = await rows_of(stack, batch)
        good = await answers(client, ended.output_file_id)
        assert len(rows) == len(good) == count
        expected = sum(round(each["response"]["body"]["usage"]["total_tokens"] / 2) for each in good.values())
        assert sum(row["price_nano_usd"] for row in rows) == expected
        assert await held(stack, client.org_id) == 0
        async with stack.database() as database:
            spent = await database.fetchval(
                "SELECT 1000000000 - posted_nano_usd FROM billing.accounts WHERE org_id = $1 AND kind = 'balance' AND mode = 'live'",
                client.org_id,
            )
            assert await database.fetch("SELECT * FROM billing.check_books() WHERE wrong > 0") == []
        assert spent == expected


async def eventually_over(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    """Through the death of who answers."""

    async def is_over() -> Batch | None:
        try:
            found = await client.batches.retrieve(batch.id)
        except openai.InternalServerError:
            return None
        return found if found.status == "completed" else None

    return await eventually(is_over, deadline_s=40)


@pytest.mark.parametrize("caller", [Peer.ENVOY, Peer.EXT_AUTHZ, Peer.CONTROL_PLANE, None])
async def test_nobody_but_the_sink_reaches_providers_by_the_listener_that_is_the_sinks(
    stack: Stack, caller: Peer | None
) -> None:
    certificates = Certificates(stack.data_dir / "secrets")
    await stack.forget_provider_requests()
    url = f"https://127.0.0.1:{stack.ports['keepers']}{keepers_path('openai')}/v1/files"
    with pytest.raises(aiohttp.ClientError):
        await certificates.post(url, b"", Peer.ENVOY, caller=None if caller is None else certificates.of(caller))
    assert await stack.provider_requests() == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files/../chat/completions", "/v1/filesystem", "/"])
async def test_the_sink_reaches_files_and_batches_and_nothing_else(stack: Stack, path: str) -> None:
    certificates = Certificates(stack.data_dir / "secrets")
    await stack.forget_provider_requests()
    url = f"https://127.0.0.1:{stack.ports['keepers']}{keepers_path('openai')}{path}"
    caller = certificates.of(Peer.BILLING_SINK)
    status, _ = await certificates.post(url, b"", Peer.ENVOY, caller=caller)
    assert status == 404
    assert await stack.provider_requests() == []


async def test_an_organisation_has_so_many_batches_under_way_and_no_more(stack: Stack) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("never", "[[sim error=timeout]]"))
        async with stack.database() as database:
            # As good as under way, for who counts them.
            await database.execute(
                """
                INSERT INTO billing.batches (
                    batch_id, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, created_at)
                SELECT $2 || n, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, now()
                FROM billing.batches, generate_series(1, 99) n WHERE batch_id = $1
                """,
                *(batch.id, f"batch_{secrets.token_hex(4)}x"),
            )
        try:
            with pytest.raises(openai.RateLimitError, match="as many batches under way"):
                await begin(client, line("one"))
        finally:
            async with stack.database() as database:
                await database.execute(
                    "DELETE FROM billing.batches WHERE org_id = $1 AND batch_id <> $2", client.org_id, batch.id
                )
        await client.batches.cancel(batch.id)
        await over(client, batch, "cancelled")


async def test_the_books_are_right_while_a_batch_is_open(stack: Stack, tmp_path: Path) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("never", "[[sim error=timeout]]"))
        assert await held(stack, client.org_id) > 0
        outcome = await CommandLine(tmp_path, {"TOLLGATE_DATA_DIR": str(stack.data_dir)}).run("books", "verify")
        assert (outcome.code, outcome.err) == (0, ""), outcome.out
        await client.batches.cancel(batch.id)
        await over(client, batch, "cancelled")


async def test_a_batch_whose_beginning_nobody_wrote_down_is_found_at_its_provider_or_ended(stack: Stack) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("a", "[[sim latency_ms=2000]]"))
        lost = f"batch_{secrets.token_hex(8)}"
        async with stack.database() as database, database.transaction():
            await database.execute(
                "UPDATE billing.batches SET upstream_id = NULL, said = NULL, created_at = created_at - interval '1 hour' WHERE batch_id = $1",
                batch.id,
            )
            # One that the provider has never heard of.
            await database.execute(
                """
                INSERT INTO billing.batches (
                    batch_id, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, created_at)
                SELECT $2, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, created_at
                FROM billing.batches WHERE batch_id = $1
                """,
                *(batch.id, lost),
            )
            await database.execute(
                "SELECT billing.place_hold($1, org_id, key_id, 1000, now() + interval '1 day', mode) FROM billing.batches WHERE batch_id = $1",
                lost,
            )
            await database.execute(
                """
                INSERT INTO billing.kept_objects (mode, object_id, kind, org_id, project_id, key_id, provider, created_at)
                SELECT mode, batch_id, 'batch', org_id, project_id, key_id, provider, created_at FROM billing.batches WHERE batch_id = $1
                """,
                lost,
            )
        assert (await client.batches.retrieve(batch.id)).status == "validating"
        await over(client, batch)
        assert [row["outcome"] for row in await rows_of(stack, batch)] == ["settled"]

        async def is_failed() -> bool:
            return (await client.batches.retrieve(lost)).status == "failed"

        assert await eventually(is_failed)
        assert await held(stack, client.org_id) == 0


@dataclass
class Begun:
    """A batch at a provider that fails."""

    stack: Stack
    client: Customer
    keeper: BalkyKeeper
    name: str
    input_file_id: str

    async def refused(self) -> openai.APIStatusError:
        """How it fails to begin."""
        with pytest.raises(openai.APIStatusError) as refused:
            await self.client.batches.create(
                input_file_id=self.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        return refused.value

    async def files(self) -> list[str]:
        """Of both, those that the provider keeps."""
        return [each["id"] for each in await self.keeper.files(f"sk-{self.name}")]

    async def wait_until_given_up(self) -> None:
        """As if nobody had waited for an answer for so long."""
        async with self.stack.database() as database:
            await database.execute(
                "UPDATE billing.batches SET created_at = created_at - interval '1 hour' WHERE org_id = $1",
                self.client.org_id,
            )

    async def is_all_over(self) -> bool:
        """Whether nothing is held, and the provider has what the client has sent it and nothing else."""
        return await held(self.stack, self.client.org_id) == 0 and await self.files() == [self.input_file_id]


@asynccontextmanager
async def at_a_balky_provider(stack: Stack) -> AsyncIterator[Begun]:
    name = f"balky-{secrets.token_hex(4)}"
    async with balky_keeper() as keeper, customer(stack) as client:
        await add_provider(stack, name, keeper.url, f"sk-{name}")
        await add_model(stack, name, [(name, f"{name}-upstream")], endpoints=ENDPOINTS, meters=METERS)
        await price_batches(stack, name)
        await wait_until_routed(stack, name)
        try:
            content = json.dumps(line("one", body={"model": name})).encode()
            file = await client.files.create(
                file=("input.jsonl", io.BytesIO(content)),
                purpose="batch",
                extra_headers={"x-tollgate-provider": name},
            )
            yield Begun(stack, client, keeper, name, file.id)
        finally:
            async with stack.database() as database:
                await database.execute("DELETE FROM catalog.route_members WHERE provider = $1", name)
                await database.execute("DELETE FROM catalog.routes WHERE name = $1", name)


async def test_a_provider_that_refuses_a_batch_keeps_neither_money_nor_input(stack: Stack) -> None:
    async with at_a_balky_provider(stack) as begun:
        begun.keeper.refuses["/v1/batches"] = 400
        error = await begun.refused()
        assert (error.status_code, error.code) == (502, "batch_not_begun")
        assert await held(stack, begun.client.org_id) == 0
        assert await eventually(begun.is_all_over)
        assert [each.status for each in (await begun.client.batches.list()).data] == ["failed"]


async def test_the_input_of_a_batch_that_was_never_begun_is_removed_with_it(stack: Stack) -> None:
    async with at_a_balky_provider(stack) as begun:
        begun.keeper.refuses["/v1/batches"] = 504
        error = await begun.refused()
        assert (error.status_code, error.code) == (503, "batch_unknown")
        assert error.response.headers["x-should-retry"] == "false"
        assert await held(stack, begun.client.org_id) > 0
        assert len(await begun.files()) == 2
        await begun.wait_until_given_up()
        assert await eventually(begun.is_all_over)


async def test_an_input_is_removed_also_where_the_answer_to_its_upload_was_lost(stack: Stack) -> None:
    async with at_a_balky_provider(stack) as begun:
        begun.keeper.loses["/v1/files"] = 504
        error = await begun.refused()
        assert (error.status_code, error.code) == (502, "batch_not_begun")
        assert await held(stack, begun.client.org_id) == 0
        assert len(await begun.files()) == 2
        await begun.wait_until_given_up()
        assert await eventually(begun.is_all_over)


async def test_a_batch_whose_beginning_took_but_was_not_heard_of_is_settled_and_its_input_removed(stack: Stack) -> None:
    async with at_a_balky_provider(stack) as begun:
        begun.keeper.loses["/v1/batches"] = 504
        assert (await begun.refused()).code == "batch_unknown"
        [batch] = (await begun.client.batches.list()).data
        await begun.wait_until_given_up()
        ended = await over(begun.client, batch)
        assert await held(stack, begun.client.org_id) == 0
        left = {begun.input_file_id, ended.output_file_id}

        async def is_removed() -> bool:
            return set(await begun.files()) == left

        assert await eventually(is_removed)


async def test_a_paused_provider_is_asked_nothing_and_what_it_has_is_settled_afterwards(stack: Stack) -> None:
    async with customer(stack) as client:
        batch = await begin(client, line("one", "Rivers? [[sim output_tokens=9 latency_ms=1500]]"))
        file_id = await send(client, [line("two")])
        await pause(stack, "openai", "pause")
        try:
            await stack.forget_provider_requests()
            held_before = await held(stack, client.org_id)
            for asked in (
                send(client, [line("three")]),
                client.files.content(file_id),
                client.files.delete(file_id),
                client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"),
                client.batches.cancel(batch.id),
            ):
                with pytest.raises(openai.InternalServerError) as refused:
                    await asked
                assert (refused.value.status_code, refused.value.code) == (503, "provider_paused")
            await asyncio.sleep(2)
            assert await stack.provider_requests() == []
            assert await held(stack, client.org_id) == held_before
        finally:
            await pause(stack, "openai", "resume")
        await over(client, batch)
        assert await held(stack, client.org_id) == 0


async def pause(stack: Stack, provider: str, verb: str) -> None:
    """Pause or resume a provider, at every Envoy."""
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    url = f"{stack.endpoints['control_plane_url']}/api/v1"
    async with aiohttp.ClientSession(headers=operator) as session:
        async with session.post(f"{url}/providers/{provider}/{verb}", json={"reason": "a test"}) as response:
            operation = await response.json()
        async with session.get(f"{url}/operations/{operation['id']}", params={"wait_ms": "10000"}) as response:
            assert (await response.json())["state"] == "applied"
