"""What a provider keeps, with the official SDK: it is its owner's alone, its provider is fixed, and whatever dies, its id is not lost."""

import asyncio
import io
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "keeps"
ENDPOINTS = ["chat", "responses", "stored_responses"]
METERS = ["input", "cached_input", "output", "reasoning"]


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def models(stack: Stack) -> None:
    await add_model(stack, MODEL, [("openai", "keeps-upstream")], endpoints=ENDPOINTS, meters=METERS)
    await wait_until_routed(stack, MODEL, "stored_responses")


def sdk(stack: Stack, key: str, **headers: str) -> openai.AsyncOpenAI:
    """Files go to a provider by name: other tests of the stack leave more of them."""
    return openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"],
        api_key=key,
        max_retries=0,
        default_headers={"x-tollgate-provider": "openai", **headers},
    )


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(stack, stack.endpoints["api_key"]) as created:
        yield created


@asynccontextmanager
async def stranger(stack: Stack, mode: Mode = Mode.LIVE) -> AsyncIterator[openai.AsyncOpenAI]:
    """Somebody of another organisation."""
    key = await stack.make_key(f"kept-{secrets.token_hex(4)}", balance="5.00", mode=mode)
    async with sdk(stack, key) as created:
        yield created


async def owner_of(stack: Stack, object_id: str) -> dict[str, Any] | None:
    async with stack.database() as database:
        row = await database.fetchrow("SELECT * FROM billing.kept_objects WHERE object_id = $1", object_id)
    return None if row is None else dict(row)


async def test_a_response_is_kept_found_continued_and_deleted(stack: Stack, client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="Rivers? [[sim output_tokens=9]]", store=True)
    assert (await client.responses.retrieve(first.id)).output_text == first.output_text
    [item] = (await client.responses.input_items.list(first.id, limit=5, order="asc")).data
    assert item.type == "message"
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input="And lakes?", previous_response_id=first.id, store=True
    )
    second = raw.parse()
    assert first.usage is not None
    assert second.usage is not None
    # What the provider has kept is read and charged like what is sent.
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    row = await stack.request_row(raw.headers["x-request-id"])
    assert (row["endpoint"], row["outcome"], row["usage_source"]) == ("stored_responses", "settled", "provider")
    assert row["price_nano_usd"] == second.usage.input_tokens + second.usage.output_tokens <= row["hold_nano_usd"]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        await client.responses.cancel(second.id)
    await client.responses.delete(first.id)
    for gone in (client.responses.retrieve(first.id), client.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert (await client.responses.retrieve(second.id)).id == second.id


async def test_a_stream_can_be_continued_as_soon_as_it_has_ended(stack: Stack, client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model=MODEL, input="Hi", store=True, stream=True)
    events = [event async for event in stream]
    response_id = events[-1].response.id  # type: ignore[union-attr]
    assert (await client.responses.retrieve(response_id)).id == response_id
    [again] = [
        event
        async for event in await client.responses.create(
            model=MODEL, input="More", previous_response_id=response_id, stream=True
        )
        if event.type == "response.completed"
    ]
    # It was not asked to be kept, so it is not.
    assert await owner_of(stack, again.response.id) is None
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(again.response.id)


async def test_nothing_is_kept_unless_it_is_asked_for(stack: Stack, client: openai.AsyncOpenAI) -> None:
    await stack.forget_provider_requests()
    response = await client.responses.create(model=MODEL, input="Hi")
    [received] = await stack.provider_requests()
    assert '"store":false' in received["body_start"]
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)


async def test_a_file_is_sent_listed_read_used_and_deleted(client: openai.AsyncOpenAI) -> None:
    content = os.urandom(100_000)
    file = await client.files.create(file=("notes.pdf", io.BytesIO(content)), purpose="user_data")
    other = await client.files.create(file=("other.txt", io.BytesIO(b"other")), purpose="assistants")
    assert [each.id for each in (await client.files.list(limit=2)).data] == [other.id, file.id]
    assert [each.id async for each in await client.files.list(limit=1)][:2] == [other.id, file.id]
    [shown] = [each async for each in await client.files.list(purpose="user_data", order="asc") if each.id == file.id]
    assert shown == file
    assert (await client.files.retrieve(file.id)).filename == "notes.pdf"
    assert (await client.files.content(file.id)).content == content
    response = await client.responses.create(
        model=MODEL,
        input=[
            {
                "role": "user",
                "content": [{"type": "input_file", "file_id": file.id}, {"type": "input_text", "text": "?"}],
            }
        ],
    )
    assert response.status == "completed"
    assert (await client.files.delete(file.id)).deleted
    for gone in (client.files.retrieve(file.id), client.files.content(file.id), client.files.delete(file.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert file.id not in [each.id async for each in await client.files.list()]


async def test_what_is_done_with_what_is_kept_costs_nothing_and_is_in_the_books(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    raw = await client.files.with_raw_response.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
    row = await stack.request_row(raw.headers["x-request-id"])
    assert (row["outcome"], row["price_nano_usd"], row["endpoint"], row["provider"]) == (
        "free",
        0,
        "file_upload",
        "openai",
    )


OF_A_RESPONSE = [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
OF_A_FILE = [("GET", ""), ("GET", "/content"), ("DELETE", "")]


async def refusal(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> tuple[int, str]:
    async with session.request(method, path, **more) as response:
        return response.status, (await response.json())["error"]["code"]


async def test_what_is_anothers_is_not_found_whatever_is_done_with_it(stack: Stack, client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", store=True)
    file = await client.files.create(file=("mine.txt", io.BytesIO(b"mine")), purpose="user_data")
    await stack.forget_provider_requests()
    for mode in Mode:
        async with (
            stranger(stack, mode) as other,
            aiohttp.ClientSession(stack.url, headers={"Authorization": f"Bearer {other.api_key}"}) as session,
        ):
            for method, action in OF_A_RESPONSE:
                path = f"/v1/responses/{response.id}{action}"
                assert await refusal(session, method, path) == (404, "not_found"), (method, path)
            for method, action in OF_A_FILE:
                path = f"/v1/files/{file.id}{action}"
                assert await refusal(session, method, path) == (404, "not_found"), (method, path)
            named = [{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}]
            for fields in ({"input": "Hi", "previous_response_id": response.id}, {"input": named}):
                body = {"model": MODEL, **fields}
                assert await refusal(session, "POST", "/v1/responses", json=body) == (404, "not_found")
            assert [each.id async for each in await other.files.list()] == []
            assert await refusal(session, "GET", f"/v1/files?after={file.id}") == (404, "not_found")
    assert await stack.provider_requests() == []
    assert (await client.files.content(file.id)).content == b"mine"


async def test_the_id_of_one_kind_is_none_of_the_other(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", store=True)
    file = await client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
    for found in (client.files.retrieve(response.id), client.responses.retrieve(file.id)):
        with pytest.raises(openai.NotFoundError):
            await found
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="Hi", previous_response_id=file.id)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files/{id}"),
        ("GET", "/v1/files/../../files"),
        ("GET", "/v1/files/%2e%2e"),
        ("GET", "/v1/files/a%2Fb"),
        ("GET", "/v1/files/a/b/content"),
        ("GET", "/v1/files/-a"),
        ("GET", "/v1/files/"),
        ("GET", f"/v1/files/{'a' * 129}"),
        ("GET", "/v1/responses/resp_1/content"),
        ("GET", "/v1/files/file-1/cancel"),
        ("PUT", "/v1/files/file-1"),
        ("POST", "/v1/files/file-1"),
        ("POST", "/v1/batches/batch_1"),
        ("DELETE", "/v1/batches/batch_1"),
        ("GET", "/v1/batches/batch_1/cancel"),
        ("GET", "/v1/batches/%2e%2e"),
    ],
)
async def test_a_path_that_is_none_leads_nowhere(stack: Stack, method: str, path: str) -> None:
    reader, writer = await asyncio.open_connection(
        stack.url.rpartition("/")[2].partition(":")[0], stack.ports["gateway"]
    )
    try:
        # As it stands: a client's library would mend it.
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {stack.headers['Authorization']}\r\n"
            "content-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
    finally:
        writer.close()
    assert answer.split(b" ")[1] in {b"400", b"404"}, answer


async def test_an_upload_needs_a_balance_and_lists_count_against_the_limits_of_a_key(stack: Stack) -> None:
    name = f"quota-{secrets.token_hex(4)}"
    async with sdk(stack, await stack.make_key(name, balance="1.00")) as client:
        async with stack.database() as database:
            await database.execute(
                "SELECT billing.move_money($1, -1000000000, 'funding', 'refund', 'gone', NULL, NULL, NULL)",
                f"org_{name}",
            )
        await stack.forget_provider_requests()
        with pytest.raises(openai.APIStatusError) as refused:
            await client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_quota")
        assert await stack.provider_requests() == []
        async with stack.database() as database:
            await database.execute(
                "UPDATE accounts.api_keys SET requests_per_minute_max = 3 WHERE key_id = $1", f"key_{name}"
            )

        async def is_limited() -> bool:
            try:
                await client.files.list()
            except openai.RateLimitError as error:
                return 0 < int(error.response.headers["retry-after"]) <= 60
            return False

        assert await eventually(is_limited)


async def test_case_is_part_of_an_id(client: openai.AsyncOpenAI) -> None:
    file = await client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file.id.upper())


@pytest.mark.parametrize(
    ("method", "path", "fields", "expected"),
    [
        ("GET", "/v1/responses/resp_1?stream=true", None, (400, "invalid_input")),
        ("GET", "/v1/files?limit=0", None, (400, "invalid_input")),
        ("GET", "/v1/files?api_key=x", None, (400, "invalid_input")),
        ("POST", "/v1/responses", {"previous_response_id": "../x"}, (400, "invalid_input")),
        ("POST", "/v1/responses", {"previous_response_id": 1}, (400, "invalid_input")),
        ("POST", "/v1/responses", {"store": "true"}, (400, "invalid_input")),
        ("POST", "/v1/responses", {"store": True, "background": True}, (400, "stored_state_not_offered")),
        ("POST", "/v1/responses", {"conversation": "conv_1"}, (400, "stored_state_not_offered")),
        ("POST", "/v1/responses", {"input": [{"role": "user", "content": [{"file_id": 7}]}]}, (400, "invalid_input")),
        (
            "POST",
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            (400, "stored_state_not_offered"),
        ),
    ],
)
async def test_what_could_not_be_kept_to_its_owner_is_refused(
    stack: Stack, method: str, path: str, fields: Mapping[str, Any] | None, expected: tuple[int, str]
) -> None:
    body = {} if fields is None else {"json": {"model": MODEL, "input": "Hi", **fields}}
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
        assert await refusal(session, method, path, **body) == expected


async def test_a_model_that_is_sold_without_anything_kept_says_so(stack: Stack) -> None:
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
        body = {"model": "gpt-4o-mini", "input": "Hi", "store": True}
        assert await refusal(session, "POST", "/v1/responses", json=body) == (400, "stored_state_not_offered")


async def test_test_keys_keep_at_the_simulator_what_is_theirs(stack: Stack) -> None:
    async with stranger(stack, Mode.TEST) as client:
        first = await client.responses.create(model=MODEL, input="Hi", store=True)
        again = await client.responses.create(model=MODEL, input="More", previous_response_id=first.id, store=True)
        assert (await client.responses.retrieve(again.id)).id == again.id
        file = await client.files.create(file=("t.txt", io.BytesIO(b"test")), purpose="user_data")
        assert [each.id for each in (await client.files.list()).data] == [file.id]
        assert (await client.files.content(file.id)).content == b"test"
        await client.files.delete(file.id)
        kept = await owner_of(stack, file.id)
        assert kept is not None
        assert (kept["mode"], kept["provider"], kept["forgotten_at"] is None) == ("test", None, False)


@asynccontextmanager
async def keeper(
    stack: Stack, content: bytes, *, content_type: str = "application/json"
) -> AsyncIterator[tuple[ScriptedProvider, str]]:
    """A provider that says what a test wants, and a model there which keeps; the second provider of every organisation that keeps files."""
    name = f"keeper-{secrets.token_hex(4)}"
    async with scripted_provider() as provider:
        provider.pieces, provider.content_type = [content], content_type
        await add_provider(stack, name, provider.url, f"sk-{name}")
        await add_model(stack, name, [(name, name)], endpoints=ENDPOINTS, meters=METERS)
        await wait_until_routed(stack, name, "stored_responses")
        # Where files could go is ext_authz's to say, which comes to a revision by itself.
        await eventually(lambda: could_keep(stack, name))
        try:
            yield provider, name
        finally:
            async with stack.database() as database:
                await database.execute("DELETE FROM catalog.route_members WHERE provider = $1", name)
                await database.execute("DELETE FROM catalog.routes WHERE name = $1", name)


async def could_keep(stack: Stack, provider: str) -> bool:
    """Whether it is named to who asks a provider that keeps nothing to keep a file."""
    headers = {**stack.headers, "x-tollgate-provider": "anthropic"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        form = aiohttp.FormData({"purpose": "user_data"})
        form.add_field("file", b"a", filename="a.txt")
        async with session.post("/v1/files", data=form) as response:
            return provider in (await response.json())["error"]["message"]


def file_object(file_id: str) -> bytes:
    said = {"id": file_id, "object": "file", "bytes": 1, "created_at": 1, "filename": "a\0", "purpose": "user_data"}
    return json.dumps(said).encode()


def response_object(response_id: str) -> bytes:
    said = {"id": response_id, "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": []}
    usage = {"usage": {"input_tokens": 5, "output_tokens": 2}}
    return json.dumps({**said, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **usage}).encode()


async def test_a_file_goes_where_the_client_says_and_stays_there(stack: Stack, client: openai.AsyncOpenAI) -> None:
    file_id = f"file-{secrets.token_hex(8)}"
    async with keeper(stack, file_object(file_id)) as (provider, name):
        for headers in (
            {"x-tollgate-provider": openai.Omit()},  # as the SDK leaves a default one out
            {"x-tollgate-provider": "anthropic"},
            {"x-tollgate-provider": "../x"},
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.files.create(
                    file=("a.txt", io.BytesIO(b"a")),
                    purpose="user_data",
                    extra_headers=headers,
                )
            assert refused.value.code == "provider_not_offered"
            assert ("openai" in refused.value.message and name in refused.value.message) != ("../" in str(headers))
        file = await client.files.create(
            file=("a.txt", io.BytesIO(b"a")), purpose="user_data", extra_headers={"x-tollgate-provider": name}
        )
        assert file.id == file_id
        assert provider.paths == ["/v1/files"]
        assert provider.headers[0]["Authorization"] == f"Bearer sk-{name}"
        assert not [header for header in provider.headers[0] if header.lower().startswith(("x-tg-", "x-tollgate"))]
        await client.files.retrieve(file_id)
        assert provider.paths == ["/v1/files", f"/v1/files/{file_id}"]
        # The other provider of that kind does not know it.
        named: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": file_id}]}]
        with pytest.raises(openai.BadRequestError) as elsewhere:
            await client.responses.create(model=MODEL, input=named)
        assert elsewhere.value.code == "kept_elsewhere"


async def test_what_continues_a_response_goes_to_the_provider_that_keeps_it_and_to_no_other(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    response_id = f"resp_{secrets.token_hex(8)}"
    async with keeper(stack, response_object(response_id)) as (provider, name):
        model = f"both-{name}"
        await add_model(stack, model, [(name, "theirs"), ("openai", "ours")], endpoints=ENDPOINTS, meters=METERS)
        await wait_until_routed(stack, model, "stored_responses")
        kept = await client.responses.create(model=model, input="Hi", store=True)
        assert kept.id == response_id
        await client.responses.create(model=model, input="More", previous_response_id=response_id)
        assert provider.paths == ["/v1/responses"] * 2
        assert b'"model":"theirs"' in provider.bodies[1]
        provider.status = 503
        await stack.forget_provider_requests()
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model=model, input="More", previous_response_id=response_id)
        assert await stack.provider_requests() == []
        # What nothing is kept of yet may go to any.
        other = await client.responses.create(model=model, input="Hi", store=True)
        [received] = await stack.provider_requests()
        assert '"model":"ours"' in received["body_start"]
        await client.responses.create(model=model, input="More", previous_response_id=other.id)


async def test_an_id_that_is_another_organisations_already_is_given_to_nobody_else(stack: Stack) -> None:
    file_id = f"file-{secrets.token_hex(8)}"
    async with keeper(stack, file_object(file_id)) as (_, name), stranger(stack) as first, stranger(stack) as second:
        for client in (first, first):
            file = await client.files.create(
                file=("a.txt", io.BytesIO(b"a")), purpose="user_data", extra_headers={"x-tollgate-provider": name}
            )
            assert file.id == file_id
        with pytest.raises(openai.InternalServerError) as withheld:
            await second.files.create(
                file=("a.txt", io.BytesIO(b"a")), purpose="user_data", extra_headers={"x-tollgate-provider": name}
            )
        assert withheld.value.code == "not_recorded"
        assert file_id not in str(withheld.value)
        await stack.spool_read()
        assert [each.id for each in (await first.files.list()).data] == [file_id]
        assert (await second.files.list()).data == []


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"id":"../x"}', b'{"id":7}', b"", b"nonsense"])
async def test_an_upload_whose_answer_says_no_id_is_not_told_as_a_success(stack: Stack, content: bytes) -> None:
    async with keeper(stack, content) as (_, name), stranger(stack) as client:
        with pytest.raises(openai.InternalServerError) as withheld:
            await client.files.create(
                file=("a.txt", io.BytesIO(b"a")), purpose="user_data", extra_headers={"x-tollgate-provider": name}
            )
        assert withheld.value.code == "not_recorded"


async def test_an_id_that_cannot_be_written_down_is_withheld_and_found_later(stack: Stack) -> None:
    async with stranger(stack) as client:
        sink = int(stack.endpoints["pids"]["billing_sink"])
        os.kill(sink, signal.SIGSTOP)
        try:
            with pytest.raises(openai.InternalServerError) as withheld:
                await client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
            assert withheld.value.code == "not_recorded"
            with pytest.raises(openai.InternalServerError) as unpaid:
                await client.responses.with_raw_response.create(model=MODEL, input="Hi", store=True)
        finally:
            # Killed between what was made and its being written down; another one is started in its place.
            stack.kill("billing_sink")
        row = await stack.request_row(unpaid.value.response.headers["x-request-id"])
        assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)

        async def listed() -> list[str]:
            return [each.id for each in (await client.files.list()).data]

        [file_id] = await eventually(listed)
        assert (await client.files.content(file_id)).content == b"a"
        async with stack.database() as database:
            kinds = await database.fetch("SELECT kind FROM billing.kept_objects k WHERE k.org_id = $1", row["org_id"])
        assert sorted(each["kind"] for each in kinds) == ["file", "response"]


async def test_requests_about_what_is_kept_count_against_the_limits_of_their_key(stack: Stack) -> None:
    name = f"kept-{secrets.token_hex(4)}"
    key = await stack.make_key(name, balance="5.00")
    async with stack.database() as database:
        await database.execute(
            "UPDATE accounts.api_keys SET requests_per_minute_max = 2 WHERE key_id = $1", f"key_{name}"
        )
    async with sdk(stack, key) as client:
        file = await client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="user_data")
        await client.files.retrieve(file.id)
        with pytest.raises(openai.RateLimitError):
            await client.files.retrieve(file.id)
