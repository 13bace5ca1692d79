"""front.lua on real streams: what the client gets, byte for byte, and what usage is captured, wherever the bytes are cut."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

USAGE = '{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'


def event(content: str, usage: str = "null") -> bytes:
    choices = f'[{{"index":0,"delta":{{"content":{json.dumps(content)}}}}}]'
    return f'data: {{"id":"c","choices":{choices},"usage":{usage}}}\n\n'.encode()


USAGE_EVENT = f'data: {{"id":"c","choices":[],"usage":{USAGE}}}\n\n'.encode()
DONE = b"data: [DONE]\n\n"
STREAM = event("Hello") + event(' "usage": {"prompt_tokens": 999} \n\n') + USAGE_EVENT + DONE


@dataclass
class Bench:
    """A model of the stack that a scripted provider serves."""

    stack: Stack
    provider: ScriptedProvider
    session: aiohttp.ClientSession

    async def ask(
        self, *, include_usage: bool = False, stream: bool = True, key: str | None = None
    ) -> tuple[bytes, str]:
        """Returns the body as the client got it, and the request id."""
        body: dict[str, object] = {"model": "scripted", "messages": [], "stream": stream}
        if include_usage:
            body["stream_options"] = {"include_usage": True}
        headers = self.stack.headers if key is None else {"Authorization": f"Bearer {key}"}
        async with self.session.post("/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
            return await response.read(), response.headers["x-request-id"]

    async def usage_of(self, request_id: str) -> list[dict[str, int]]:
        """The provider's words as they are kept with the row."""
        row = await self.stack.request_row(request_id)
        return [json.loads(text) for text in json.loads(row["usage_raw"] or "[]")]


@pytest.fixture
async def bench(stack: Stack) -> AsyncIterator[Bench]:
    async with scripted_provider() as provider, aiohttp.ClientSession(stack.url) as session:
        async with stack.database() as database:
            known = await database.fetchval("SELECT count(*) FROM catalog.providers WHERE name = 'scripted'")
            if known:
                await database.execute(
                    "UPDATE catalog.providers SET base_url = $1 WHERE name = 'scripted'", provider.url
                )
        if not known:
            await add_provider(stack, "scripted", provider.url, "scripted-secret")
            await add_model(stack, "scripted", [("scripted", "upstream-scripted")])
        await wait_until_routed(stack, "scripted")
        await stack.cluster_is_at("provider/scripted", provider.url)
        yield Bench(stack, provider, session)


async def test_the_usage_chunk_is_hidden_and_everything_else_passes_wherever_it_is_cut(bench: Bench) -> None:
    expected = STREAM.replace(USAGE_EVENT, b"")
    for cut in range(1, len(STREAM), 7):
        bench.provider.pieces = [STREAM[:cut], STREAM[cut:]]
        bench.provider.pause_s = 0.002
        body, request_id = await bench.ask()
        assert body == expected, f"cut at {cut}"
        if cut % 5 == 0:
            assert await bench.usage_of(request_id) == [json.loads(USAGE)]


async def test_byte_by_byte_gives_the_same(bench: Bench) -> None:
    bench.provider.pieces = [bytes([byte]) for byte in STREAM]
    body, request_id = await bench.ask()
    assert body == STREAM.replace(USAGE_EVENT, b"")
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]
    assert (await bench.stack.request_row(request_id))["sse_events"] == 4


async def test_a_client_that_asked_gets_every_byte(bench: Bench) -> None:
    bench.provider.pieces = [STREAM]
    body, request_id = await bench.ask(include_usage=True)
    assert body == STREAM
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


async def test_crlf_streams_are_read_as_well(bench: Bench) -> None:
    stream = STREAM.replace(b"\n\n", b"\r\n\r\n")
    bench.provider.pieces = [stream[:100], stream[100:]]
    body, request_id = await bench.ask()
    assert body == stream.replace(USAGE_EVENT.replace(b"\n\n", b"\r\n\r\n"), b"")
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


@pytest.mark.parametrize("blank", [b"\n\r\n", b"\r\r"])
async def test_other_blank_lines_end_an_event_too(bench: Bench, blank: bytes) -> None:
    bench.provider.pieces = [STREAM.replace(b"\n\n", blank)]
    body, request_id = await bench.ask()
    assert body == STREAM.replace(USAGE_EVENT, b"").replace(b"\n\n", blank)
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


@pytest.mark.parametrize("content_type", ["Text/Event-Stream", "text/event-stream; charset=utf-8"])
async def test_a_stream_is_known_by_its_type_however_that_is_written(bench: Bench, content_type: str) -> None:
    bench.provider.content_type = content_type
    bench.provider.pieces = [STREAM]
    _, request_id = await bench.ask()
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


@pytest.mark.parametrize(
    "event_with_usage",
    [
        USAGE_EVENT.removesuffix(b"\n\n"),
        USAGE_EVENT.removesuffix(b"\n"),
        b": data: not this one\nid: 7\n" + USAGE_EVENT,
    ],
)
async def test_usage_is_found_in_a_last_event_without_its_end_and_behind_other_lines(
    bench: Bench, event_with_usage: bytes
) -> None:
    bench.provider.pieces = [event("a"), event_with_usage]
    _, request_id = await bench.ask()
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


@pytest.mark.parametrize("status", [201, 299])
async def test_another_2xx_is_charged_like_200(bench: Bench, status: int) -> None:
    bench.provider.status = status
    bench.provider.pieces = [STREAM]
    async with bench.session.post(
        "/v1/chat/completions", json={"model": "scripted", "stream": True}, headers=bench.stack.headers
    ) as response:
        assert response.status == status
        await response.read()
        row = await bench.stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], row["usage_source"]) == ("settled", "provider")


async def test_usage_that_no_model_could_cause_is_charged_to_nobody_and_what_is_held_waits_for_a_person(
    bench: Bench,
) -> None:
    usage = '{"prompt_tokens":7,"completion_tokens":1000000000}'
    bench.provider.pieces = [event("a"), USAGE_EVENT.replace(USAGE.encode(), usage.encode())]
    # Its time is made to be over: nobody else's money may be in the slice.
    _, request_id = await bench.ask(key=await bench.stack.make_key("set-aside", balance="10000"))

    async def reason() -> str | None:
        async with bench.stack.database() as database:
            found: str | None = await database.fetchval(
                "SELECT reason FROM billing.quarantine WHERE request_id = $1", request_id
            )
            return found

    assert "more tokens than the model can have read" in await eventually(reason)
    async with bench.stack.database() as database:
        kept = await database.fetchrow(
            "SELECT slice_id, share_nano_usd FROM billing.quarantine WHERE request_id = $1", request_id
        )
        assert kept is not None
        await database.execute(
            """
            UPDATE billing.slices SET expires_at = now() FROM billing.accounts
            WHERE accounts.account_id = slices.account_id AND org_id = 'org_set-aside'
            """
        )
        await database.execute("SELECT billing.close_slices(now(), 1000)")
        still_open = await database.fetchval(
            "SELECT open_nano_usd FROM billing.slices WHERE slice_id = $1", kept["slice_id"]
        )
    assert still_open >= kept["share_nano_usd"] > 0


@pytest.mark.parametrize("ending", [b"data: [DONE]", b"data: [DONE]\n", b": comment"])
async def test_a_last_event_without_its_blank_line_still_reaches_the_client(bench: Bench, ending: bytes) -> None:
    bench.provider.pieces = [event("a"), ending]
    bench.provider.pause_s = 0.01
    body, _ = await bench.ask()
    assert body == event("a") + ending


async def test_an_event_too_long_to_keep_passes_and_what_follows_is_read(bench: Bench) -> None:
    long = event("x" * 3_000_000)
    bench.provider.pieces = [long[:1_500_000], long[1_500_000:] + USAGE_EVENT + DONE]
    body, request_id = await bench.ask()
    assert body == long + DONE
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


MODELS_WORDS = json.dumps({"usage": {"prompt_tokens": 999, "completion_tokens": 999}})


@pytest.mark.parametrize("include_usage", [True, False])
async def test_of_a_last_event_too_long_to_keep_the_end_is_read(bench: Bench, include_usage: bool) -> None:
    words = json.dumps("x" * 3_000_000 + MODELS_WORDS)
    choices = f'[{{"index":0,"delta":{{"content":{words},"usage":{{"prompt_tokens":8}}}},"logprobs":{MODELS_WORDS}}}]'
    stream = f'data: {{"choices":{choices},"usage":{USAGE},"note":{json.dumps(MODELS_WORDS)},"n":[{{}}]}}\n\n'.encode()
    bench.provider.pieces = [stream[:1_500_000], stream[1_500_000:2_999_999], stream[2_999_999:-1], stream[-1:] + DONE]
    body, request_id = await bench.ask(include_usage=include_usage)
    assert body == stream + DONE
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]
    assert (await bench.stack.request_row(request_id))["sse_events"] == 2


async def test_what_a_model_says_at_the_end_of_an_event_too_long_to_keep_is_not_the_providers_word(
    bench: Bench,
) -> None:
    for end in (
        '"content":' + json.dumps(MODELS_WORDS) + "}}]}",
        '"usage":' + USAGE + "}}]}",
        '"content":"' + '\\"' * 20_000 + '\\"usage\\":{\\"prompt_tokens\\":1}}"}}]}',
    ):
        stream = 'data: {"choices":[{"index":0,"delta":{"pad":"' + "x" * 2_000_000 + '",' + end + "\n\n"
        bench.provider.pieces = [stream.encode()]
        body, request_id = await bench.ask()
        assert body == stream.encode()
        row = await bench.stack.request_row(request_id)
        assert (row["usage_source"], row["usage_raw"]) == ("estimated", None)


async def test_comments_pass_and_are_no_output(bench: Bench) -> None:
    comment = b": PROCESSING\n\n"
    bench.provider.pieces = [comment * 500, event("a"), comment]
    body, request_id = await bench.ask()
    assert body == comment * 500 + event("a") + comment
    row = await bench.stack.request_row(request_id)
    assert (row["outcome"], row["sse_events"], json.loads(row["meters"])["output"]) == ("estimated", 1, 1)
    bench.provider.pieces = [comment * 500]
    _, request_id = await bench.ask()
    row = await bench.stack.request_row(request_id)
    assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)


async def test_an_answer_too_large_to_be_kept_is_charged_up_to_its_hold(bench: Bench) -> None:
    bench.provider.content_type = "application/json"
    bench.provider.pieces = [b'{"choices":"' + b"x" * (34 << 20) + b'","usage":' + USAGE.encode() + b"}"]
    body: dict[str, object] = {"model": "scripted", "messages": [], "max_completion_tokens": 50}
    async with bench.session.post("/v1/chat/completions", json=body, headers=bench.stack.headers) as response:
        assert response.status == 500
        await response.read()
    row = await bench.stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], json.loads(row["meters"])["output"]) == ("estimated", 50)
    assert 0 < row["price_nano_usd"] <= row["hold_nano_usd"]


async def test_usage_in_every_chunk_counts_once_by_the_last(bench: Bench) -> None:
    running = '{"prompt_tokens":7,"completion_tokens":1}'
    stream = event("a", running) + event("b", running.replace("1}", "2}")) + USAGE_EVENT + DONE
    bench.provider.pieces = [stream]
    _, request_id = await bench.ask()
    row = await bench.stack.request_row(request_id)
    assert json.loads(row["meters"]) == {"input": 7, "output": 3}


async def test_a_usage_inside_tool_arguments_is_the_models_and_not_the_providers(bench: Bench) -> None:
    bench.provider.content_type = "application/json"
    arguments = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    message = {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}], "usage": {"prompt_tokens": 2}}
    answer = json.dumps({"choices": [{"message": message}], "usage": json.loads(USAGE)}).encode()
    bench.provider.pieces = [answer]
    body, request_id = await bench.ask(stream=False)
    assert body == answer
    assert await bench.usage_of(request_id) == [json.loads(USAGE)]


async def test_a_stream_cut_by_the_provider_is_estimated_by_what_was_delivered(bench: Bench) -> None:
    bench.provider.pieces = [event("a"), event("b"), event("c")]
    bench.provider.pause_s = 0.02
    bench.provider.cut = True
    with pytest.raises(aiohttp.ClientPayloadError):
        await bench.ask()

    async def find() -> str | None:
        async with bench.stack.database() as database:
            found: str | None = await database.fetchval(
                "SELECT request_id FROM billing.requests WHERE model = 'scripted' AND response_details LIKE 'upstream_reset%'"
            )
            return found

    row = await bench.stack.request_row(await eventually(find))
    assert (row["usage_source"], row["sse_events"]) == ("estimated", 3)
    assert json.loads(row["meters"])["output"] == 3


async def test_the_provider_is_asked_for_usage_and_nothing_else_of_the_body_changes(bench: Bench) -> None:
    bench.provider.pieces = [STREAM]
    sent = b'{ "stream_options" : { "include_obfuscation": false } , "model":"scripted", "stream":true,"x":1e400}'
    async with bench.session.post("/v1/chat/completions", data=sent, headers=bench.stack.headers) as response:
        await response.read()
    expected = sent.replace(b'"scripted"', b'"upstream-scripted"').replace(
        b'{ "include_obf', b'{"include_usage":true, "include_obf'
    )
    assert bench.provider.bodies[-1] == expected
    assert bench.provider.headers[-1]["Content-Length"] == str(len(expected))


FLEX_PRICES = """
    INSERT INTO catalog.prices (model, provider, meter, condition, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
    SELECT 'scripted', 'scripted', meter, condition::jsonb, 1000000, price
    FROM (VALUES ('input', '{}', 4000000), ('input', '{"service_tier": "flex"}', 2000000),
                 ('output', '{}', 8000000), ('output', '{"service_tier": "flex"}', 4000000)) p (meter, condition, price)
"""


def tiered(stream: bytes) -> bytes:
    """A stream as OpenAI writes it: every chunk names the tier."""
    return stream.replace(b'"id":"c",', b'"id":"c","service_tier":"flex",')


async def test_the_tier_in_the_answer_decides_the_price_in_streams_and_out_of_them(bench: Bench) -> None:
    async with bench.stack.database() as database:
        await database.execute(FLEX_PRICES)
    bench.provider.pieces = [STREAM]

    async def price_at_the_standard_tier() -> bool:
        _, request_id = await bench.ask()
        return bool((await bench.stack.request_row(request_id))["price_nano_usd"] == 7 * 4 + 3 * 8)

    await eventually(price_at_the_standard_tier)
    deep = '{"service_tier":"scale","usage":{"prompt_tokens":1}}'
    answer = (
        f'{{"choices":[{{"message":{{"content":{json.dumps(deep)},"tool":{deep}}}}}],"usage":{USAGE},'
        '"system_fingerprint":null,"service_tier":"flex"}'
    ).encode()
    for pieces, content_type, stream in (
        ([tiered(STREAM)], "text/event-stream", True),
        ([answer], "application/json", False),
    ):
        bench.provider.pieces, bench.provider.content_type = pieces, content_type
        _, request_id = await bench.ask(stream=stream)
        row = await bench.stack.request_row(request_id)
        assert (row["price_nano_usd"], row["cost_nano_usd"]) == (7 * 2 + 3 * 4, 10)
        assert row["service_tier"] == "flex"


async def test_a_tier_that_nobody_priced_is_set_aside_and_its_name_is_told(bench: Bench) -> None:
    bench.provider.pieces = [STREAM.replace(b'"id":"c",', b'"id":"c","service_tier":"ultrafast",')]
    _, request_id = await bench.ask()

    async def reason() -> str | None:
        async with bench.stack.database() as database:
            found: str | None = await database.fetchval(
                "SELECT reason FROM billing.quarantine WHERE request_id = $1", request_id
            )
            return found

    assert "no price for service tier ultrafast" in await eventually(reason)
