"""Near the end of the money: answers are made shorter, whatever the body looks like and whoever answers, and then refused."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

# The providers answer in the loop that they were started in.
pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = 300
"""What each balance is enough for, beside the bytes of the request; a token costs a nano-USD."""
ASKED_FOR_USAGE = ',"stream_options":{"include_usage":true}'
HEADER = "x-tollgate-max-tokens"

# $MODEL: the model's name; N: the bound.
CHAT_BODIES = {
    "no bound": ('{"model":"$MODEL","messages":[]}', '{"model":"$MODEL","max_completion_tokens":N,"messages":[]}'),
    "the old field": ('{"model":"$MODEL","max_tokens":900}', '{"model":"$MODEL","max_tokens":N}'),
    "the new one, in front": (
        '{ "max_completion_tokens" : 900 , "model" : "$MODEL" }',
        '{ "max_completion_tokens" : N , "model" : "$MODEL" }',
    ),
    "both, one of them low": (
        '{"max_completion_tokens":1e3,"model":"$MODEL","max_tokens":280}',
        '{"max_completion_tokens":N,"model":"$MODEL","max_tokens":280}',
    ),
    "null": (
        '{"max_completion_tokens":null,"max_tokens":null,"model":"$MODEL"}',
        '{"max_completion_tokens":N,"max_tokens":null,"model":"$MODEL"}',
    ),
    "null in the old field": (
        '{"max_tokens":null,"model":"$MODEL"}',
        '{"max_tokens":null,"model":"$MODEL","max_completion_tokens":N}',
    ),
    "a bound inside": (
        '{"messages":[{"max_tokens":7}],"model":"$MODEL"}',
        '{"messages":[{"max_tokens":7}],"model":"$MODEL","max_completion_tokens":N}',
    ),
    "a stream": (
        '{"stream":true,"max_tokens":900,"model":"$MODEL"}',
        '{"stream":true,"max_tokens":N,"model":"$MODEL"' + ASKED_FOR_USAGE + "}",
    ),
    "a stream with options in front": (
        '{"stream_options":{},"max_tokens":900,"model":"$MODEL","stream":true,"max_completion_tokens":901}',
        (
            '{"stream_options":{"include_usage":true},"max_tokens":N,"model":"$MODEL","stream":true,'
            '"max_completion_tokens":N}'
        ),
    ),
    "a stream with options between": (
        '{"max_tokens":900,"model":"$MODEL","stream_options":{"include_usage":false},"stream":true,"max_completion_tokens":901}',
        '{"max_tokens":N,"model":"$MODEL","stream_options":{"include_usage":true},"stream":true,"max_completion_tokens":N}',
    ),
}
MESSAGES_BODIES = {
    "a bound": ('{"model":"$MODEL","max_tokens":900}', '{"model":"$MODEL","max_tokens":N}'),
    "thinking": (
        '{"max_tokens":900,"thinking":{"type":"enabled","budget_tokens":299},"model":"$MODEL"}',
        '{"max_tokens":N,"thinking":{"type":"enabled","budget_tokens":299},"model":"$MODEL"}',
    ),
}
FIRST, SECOND = "the-name-at-the-first", "second"


async def set_balance(stack: Stack, name: str, nano_usd: int) -> None:
    """Give an organisation that much, all of it free."""
    async with stack.database() as database:
        free = await database.fetchval(
            """
            SELECT posted_nano_usd - held_nano_usd FROM billing.accounts
            WHERE kind = 'balance' AND org_id = $1 AND mode = 'live'
            """,
            f"org_{name}",
        )
        if nano_usd != free:
            await database.execute("SELECT billing.credit($1, $2, 'test')", f"org_{name}", nano_usd - free)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def providers(stack: Stack) -> AsyncIterator[tuple[ScriptedProvider, ScriptedProvider]]:
    """What serves the models `cut-chat` and `cut-messages`: one that fails, and one whose answers say nothing."""
    async with scripted_provider() as first, scripted_provider() as second:
        first.status = 500
        for kind, endpoint in (("openai", "chat"), ("anthropic", "messages")):
            for name, each in (("first", first), ("second", second)):
                each.content_type, each.pieces = "application/json", [b"{}"]
                await add_provider(stack, f"cut-{endpoint}-{name}", each.url, "cut-secret", kind)
            chain = [(f"cut-{endpoint}-first", FIRST), (f"cut-{endpoint}-second", SECOND)]
            await add_model(stack, f"cut-{endpoint}", chain)
        await wait_until_routed(stack, "cut-chat")
        await stack.cluster_is_at("provider/cut-messages-second", second.url)
        yield first, second


@pytest.fixture
def chains(providers: tuple[ScriptedProvider, ScriptedProvider]) -> tuple[ScriptedProvider, ScriptedProvider]:
    """The two of them, without a memory."""
    for each in providers:
        each.bodies.clear()
        each.headers.clear()
    return providers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def key(stack: Stack) -> str:
    return await stack.make_key("cut", balance="0.000001")


@pytest_asyncio.fixture(loop_scope="session")
async def session(stack: Stack, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, headers={"Authorization": f"Bearer {key}"}) as created:
        yield created


def filled(body: str, model: str, bound: int = 0) -> str:
    return body.replace("$MODEL", model).replace(":N", f":{bound}").replace(": N", f": {bound}")


@pytest.mark.parametrize(
    ("path", "model", "sent", "expected"),
    [
        pytest.param(path, model, *bodies, id=f"{model} {name}")
        for path, model, table in (
            ("/v1/chat/completions", "cut-chat", CHAT_BODIES),
            ("/v1/messages", "cut-messages", MESSAGES_BODIES),
        )
        for name, bodies in table.items()
    ],
)
async def test_every_attempt_is_sent_the_bound_that_is_paid_for(
    stack: Stack,
    session: aiohttp.ClientSession,
    chains: tuple[ScriptedProvider, ScriptedProvider],
    path: str,
    model: str,
    sent: str,
    expected: str,
) -> None:
    # What is held for is the body as it is forwarded before it is cut down, with the first provider's name for the model.
    forwarded = len(filled(sent, FIRST))
    if '"stream":true' in sent:
        forwarded += len('{"include_usage":true}') - len("{}") if '"stream_options":{}' in sent else 0
        forwarded -= len("false") - len("true") if "false" in sent else 0
        forwarded += len(ASKED_FOR_USAGE) if "stream_options" not in sent else 0
    await set_balance(stack, "cut", forwarded + TOKENS)
    async with session.post(path, data=filled(sent, model)) as response:
        assert response.status == 200, await response.text()
        assert response.headers.getall(HEADER) == [str(TOKENS)]
    for provider, name in zip(chains, (FIRST, SECOND), strict=True):
        [body] = provider.bodies
        assert body.decode() == filled(expected, name, TOKENS)
        assert provider.headers[0]["Content-Length"] == str(len(body))
    await stack.settled()


async def test_every_choice_is_cut_down_and_all_of_them_are_paid_for(
    stack: Stack, session: aiohttp.ClientSession, chains: tuple[ScriptedProvider, ScriptedProvider]
) -> None:
    sent = '{"model":"$MODEL","n":2}'
    await set_balance(stack, "cut", len(filled(sent, FIRST)) + 2 * TOKENS + 1)
    async with session.post("/v1/chat/completions", data=filled(sent, "cut-chat")) as response:
        assert response.headers[HEADER] == str(TOKENS)
    assert json.loads(chains[1].bodies[0]) == {"model": SECOND, "n": 2, "max_completion_tokens": TOKENS}
    await stack.settled()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", '{"model":"cut-chat"}'),
        ("/v1/messages", '{"model":"cut-messages","max_tokens":900,"thinking":{"budget_tokens":500}}'),
        ("/v1/messages", '{"model":"cut-messages","max_tokens":501}'),
    ],
)
async def test_what_would_be_too_short_for_the_client_or_its_provider_is_refused(
    stack: Stack,
    session: aiohttp.ClientSession,
    chains: tuple[ScriptedProvider, ScriptedProvider],
    path: str,
    body: str,
) -> None:
    await set_balance(stack, "cut", len(body) + (500 if "thinking" in body else 200))
    async with session.post(path, data=body) as response:
        assert response.status == 402
        assert (await response.json())["error"]["code"] == "insufficient_quota"
        assert response.headers["x-should-retry"] == "false"
        assert HEADER not in response.headers
    assert not chains[0].bodies


async def test_who_asked_for_less_gets_that_and_is_told_nothing(
    stack: Stack, session: aiohttp.ClientSession, chains: tuple[ScriptedProvider, ScriptedProvider]
) -> None:
    body = '{"model":"cut-chat","max_tokens":20}'
    await set_balance(stack, "cut", len(body) + len(FIRST) - len("cut-chat") + 20)
    async with session.post("/v1/chat/completions", data=body) as response:
        assert response.status == 200
        assert HEADER not in response.headers
    assert json.loads(chains[1].bodies[0]) == {"model": SECOND, "max_tokens": 20}
    await stack.settled()


async def test_the_last_of_the_money_buys_a_shorter_answer_within_its_hold_and_the_next_request_is_refused(
    stack: Stack,
) -> None:
    await add_model(stack, "story", [("openai", "story")])
    await wait_until_routed(stack, "story")
    prompt = "Tell me everything. [[sim output_tokens=1000]]"
    body = json.dumps({"model": "story", "messages": [{"role": "user", "content": prompt}]})
    key = await stack.make_key("story", balance=f"{(len(body) + TOKENS) / 1e9:.9f}")
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:

        async def ask() -> tuple[int, str, str, str]:
            async with session.post("/v1/chat/completions", data=body) as response:
                found = response.headers
                return response.status, found["x-request-id"], found.get(HEADER, ""), await response.text()

        status, request_id, told, answer = await eventually(ask)
        assert (status, told) == (200, str(TOKENS))
        answered = json.loads(answer)
        assert answered["usage"]["completion_tokens"] == TOKENS
        assert answered["choices"][0]["finish_reason"] == "length"
        row = await stack.request_row(request_id)
        assert (row["outcome"], row["hold_nano_usd"], row["absorbed_nano_usd"]) == ("settled", len(body) + TOKENS, 0)
        assert 0 < row["price_nano_usd"] <= row["hold_nano_usd"]
        await stack.settled()
        status, _, told, answer = await ask()
        assert (status, told) == (402, "")
        assert json.loads(answer)["error"]["code"] == "insufficient_quota"
    async with stack.database() as database:
        assert not await database.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")


async def test_play_money_comes_to_its_end_in_the_same_way(stack: Stack) -> None:
    key = await stack.make_key("play", balance="1", mode=Mode.TEST)
    await add_model(stack, "play", [("openai", "play")])
    await wait_until_routed(stack, "play")
    prompt = "Tell me everything. [[sim output_tokens=1000]]"
    body = json.dumps({"model": "play", "messages": [{"role": "user", "content": prompt}]})
    async with stack.database() as database:
        await database.execute(
            """
            SELECT billing.place_hold('all but', org_id, 'key_play', posted_nano_usd - $1, 'infinity', 'test')
            FROM billing.accounts WHERE org_id = 'org_play' AND mode = 'test'
            """,
            len(body) + TOKENS,
        )
    await stack.forget_provider_requests()
    async with (
        aiohttp.ClientSession(stack.url, headers={"Authorization": f"Bearer {key}"}) as session,
        session.post("/v1/chat/completions", data=body) as response,
    ):
        assert (response.status, response.headers[HEADER]) == (200, str(TOKENS))
        assert (await response.json())["usage"]["completion_tokens"] == TOKENS
    async with stack.database() as database:
        await database.execute("SELECT billing.expire_holds('infinity', 1000)")
