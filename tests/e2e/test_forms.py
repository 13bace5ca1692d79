"""Forms with files, through the real Envoy: what is charged, and that nobody can name one model to us and another one to a provider."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADER = "x-request-id"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=XX"
SOUND = b"\x00\x01\r\nsound\r\n--X\r\n" * 2001
"""32,016 bytes, two seconds and a little, in which there is everything but the boundary."""


@dataclass
class Upstreams:
    """Two providers in the words of a test: `heard` asks the first one, then the second."""

    first: ScriptedProvider
    second: ScriptedProvider

    def answer(self, **fields: object) -> None:
        """What both answer from now on; nothing has been received yet."""
        for each in (self.first, self.second):
            each.status, each.content_type, each.pieces = 200, "application/json", [json.dumps(fields).encode()]
            each.bodies.clear()
            each.headers.clear()
            each.paths.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstreams(stack: Stack) -> AsyncIterator[Upstreams]:
    async with scripted_provider() as first, scripted_provider() as second:
        await add_provider(stack, "ear", first.url, "first-secret")
        await add_provider(stack, "other-ear", second.url, "second-secret")
        endpoints = ["transcriptions", "translations"]
        for model, meters in (
            ("heard", ["audio_second"]),
            ("heard-by-tokens", ["input", "audio_input", "output"]),
        ):
            chain = [("ear", f"first-{model}"), ("other-ear", f"the-second-name-of-{model}")]
            await add_model(stack, model, chain, endpoints=endpoints, meters=meters)
        await add_model(stack, "edited", [("ear", "edited")], endpoints=["image_edits"], meters=["image"])
        await wait_until_routed(stack, "edited", "image_edits")
        yield Upstreams(first, second)


def part(name: str, content: bytes, *, file: str | None = None, more: bytes = b"") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
    return b"--XX\r\n" + disposition.encode() + b"\r\n" + more + b"\r\n" + content + b"\r\n"


FILE = part("file", SOUND, file="a.mp3", more=b"Content-Type: audio/mpeg\r\n")
END = b"--XX--\r\n"


def form(*parts: bytes, model: str = "heard") -> bytes:
    return part("model", model.encode()) + b"".join(parts) + END


async def charged(stack: Stack, request_id: str) -> tuple[str, str, dict[str, int], int]:
    row = await stack.request_row(request_id)
    assert row["price_nano_usd"] <= row["hold_nano_usd"]
    async with stack.database() as database:
        paid = await database.fetchval(
            """
            SELECT -sum(e.amount_nano_usd) FROM billing.transactions t
            JOIN billing.entries e USING (transaction_id) JOIN billing.accounts a USING (account_id)
            WHERE t.request_id = $1 AND a.kind = 'balance'
            """,
            request_id,
        )
    assert (paid or 0) == row["price_nano_usd"]
    return row["outcome"], row["usage_source"], json.loads(row["meters"] or "{}"), row["price_nano_usd"]


async def test_sound_is_charged_by_the_second_or_by_tokens(stack: Stack, client: openai.AsyncOpenAI) -> None:
    raw = await client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=("a.mp3", SOUND))
    assert raw.parse().text.startswith("Sound ")
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "provider", {"audio_second": 3}, 3 * 100_000)
    row = await stack.request_row(raw.headers[HEADER])
    assert row["hold_nano_usd"] // 100_000 == -(-(len(SOUND) + 400) * 8 // 6000)
    verbose = await client.audio.transcriptions.with_raw_response.create(
        model="whisper-1",
        file=("a.mp3", SOUND),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (await charged(stack, verbose.headers[HEADER]))[2] == {"audio_second": 3}
    tokens = await client.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=("a.mp3", SOUND), prompt="Who?"
    )
    outcome, source, meters, price = await charged(stack, tokens.headers[HEADER])
    assert (outcome, source, set(meters)) == ("settled", "provider", {"input", "audio_input", "output"})
    assert price == meters["input"] * 2500 + meters["audio_input"] * 6000 + meters["output"] * 10_000


async def test_a_streamed_transcription_is_charged_by_its_last_event(stack: Stack, client: openai.AsyncOpenAI) -> None:
    raw = await client.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=("a.mp3", SOUND), stream=True
    )
    events = [event async for event in raw.parse()]
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    outcome, source, meters, _ = await charged(stack, raw.headers[HEADER])
    assert (outcome, source, meters["audio_input"]) == ("settled", "provider", 21)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of a method of the client
async def test_a_translation_is_charged_by_the_length_that_its_answer_tells(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    raw = await client.audio.translations.with_raw_response.create(
        model="whisper-1", file=("a.mp3", SOUND), response_format="verbose_json"
    )
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "provider", {"audio_second": 3}, 3 * 100_000)


async def test_pictures_are_edited_for_what_they_have_been_read_and_drawn(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    raw = await client.images.with_raw_response.edit(
        model="gpt-image-1", image=[("a.png", b"a"), ("b.png", b"b")], mask=("m.png", b"m"), prompt="A river.", n=2
    )
    assert len(raw.parse().data or []) == 2
    # The simulator takes pictures of one name for one.
    assert await charged(stack, raw.headers[HEADER]) == (
        "settled",
        "provider",
        {"input": 2, "image_input": 388, "image_output": 544},
        2 * 5000 + 388 * 10_000 + 544 * 40_000,
    )
    assert (await stack.request_row(raw.headers[HEADER]))["hold_nano_usd"] > 3 * 10_000 * 10_000 + 2 * 6240 * 40_000


async def test_a_test_key_is_answered_by_the_simulator(stack: Stack) -> None:
    key = await stack.make_key("listener", balance="1", mode=Mode.TEST)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": TYPE}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        for path, body in (
            (TRANSCRIPTIONS, form(FILE, model="whisper-1")),
            ("/v1/audio/translations", form(FILE, part("response_format", b"verbose_json"), model="whisper-1")),
            (
                "/v1/images/edits",
                form(part("image", b"a", file="a.png"), part("prompt", b"Hi"), model="gpt-image-1"),
            ),
        ):
            async with session.post(path, data=body) as response:
                assert response.status == 200, await response.text()
            row = await stack.request_row(response.headers[HEADER])
            assert (row["mode"], row["outcome"]) == ("test", "settled")


@pytest.mark.parametrize(
    ("path", "parts", "code", "param"),
    [
        (TRANSCRIPTIONS, [FILE, part("response_format", b"srt")], "usage_required", "response_format"),
        (TRANSCRIPTIONS, [FILE, part("response_format", b"text")], "usage_required", "response_format"),
        ("/v1/audio/translations", [FILE], "usage_required", "response_format"),
        (TRANSCRIPTIONS, [], "invalid_input", "file"),
        (TRANSCRIPTIONS, [FILE, part("url", b"http://there/")], "invalid_input", "url"),
        (TRANSCRIPTIONS, [FILE, part("stream", b"1")], "invalid_input", "stream"),
        (TRANSCRIPTIONS, [FILE, part("models", b"other")], "invalid_model", "models"),
        ("/v1/images/edits", [part("n", b"11")], "invalid_number", "n"),
        ("/v1/images/edits", [part("n", b"1e1")], "invalid_number", "n"),
        ("/v1/images/edits", [part("n", b" 1")], "invalid_number", "n"),
        ("/v1/images/edits", [part("stream", b"true")], "stream_not_offered", "stream"),
    ],
)
async def test_what_nobody_would_count_is_refused(
    session: aiohttp.ClientSession, upstreams: Upstreams, path: str, parts: list[bytes], code: str, param: str
) -> None:
    upstreams.answer()
    model = "edited" if "images" in path else "heard"
    async with session.post(path, data=form(*parts, model=model), headers={"content-type": TYPE}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, code, param)
    assert upstreams.first.bodies == []


MODEL = part("model", b"heard")
OTHER = part("model", b"dear")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("", 415),
        ("multipart/form-data", 415),
        ("multipart/form-data; boundary=", 415),
        ('multipart/form-data; boundary="XX', 415),
        ('multipart/form-data; boundary="X X"', 415),
        ("multipart/form-data; boundary=XX; boundary=YY", 415),
        ("multipart/form-data; boundary=XX; charset=utf-16", 415),
        ("multipart/form-data; charset=utf-16; boundary=XX", 415),
        ("multipart/form-data; boundary*=XX", 415),
        ("multipart/mixed; boundary=XX", 415),
        ("multipart/form-data; boundary=XX, multipart/form-data; boundary=YY", 415),
        ("multipart/form-data; boundary=X:X", 415),
        (f"multipart/form-data; boundary={'X' * 71}", 415),
        ("multipart/form-data; boundary=X", 400),
        ("multipart/form-data; boundary=XXY", 400),
        ('multipart/form-data; boundary="XX"', 200),
        ("multipart/form-data;boundary=XX", 200),
    ],
)
async def test_a_form_has_one_boundary_that_everybody_reads_alike(
    session: aiohttp.ClientSession, upstreams: Upstreams, content_type: str, status: int
) -> None:
    upstreams.answer(text="Hi", usage={"type": "duration", "seconds": 1})
    headers = {"content-type": content_type}
    async with session.post(TRANSCRIPTIONS, data=form(FILE), headers=headers) as response:
        answer = await response.json()
    assert response.status == status, answer
    if status == 200:
        assert upstreams.first.headers[0]["Content-Type"] == content_type
    else:
        code = "unsupported_media_type" if status == 415 else "invalid_form"
        assert (answer["error"]["code"], upstreams.first.bodies) == (code, [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(MODEL + OTHER + FILE + END, id="two models"),
        pytest.param(MODEL + part("Model", b"dear") + FILE + END, id="another case"),
        pytest.param(MODEL + part("model[]", b"dear") + FILE + END, id="a list"),
        pytest.param(MODEL + part("model.x", b"dear") + FILE + END, id="a path"),
        pytest.param(MODEL + FILE + END + OTHER + END, id="behind the end"),
        pytest.param(MODEL + FILE + END + b"x", id="a byte behind the end"),
        pytest.param(OTHER[2:] + MODEL + FILE + END, id="before the first boundary"),
        pytest.param(b"\r\n" + MODEL + FILE + END, id="a line before the first boundary"),
        pytest.param(MODEL + FILE + part("x", b'\n--XX\nContent-Disposition: form-data; name="model"\n\ndear\n') + END, id="bare LF"),
        pytest.param((MODEL + FILE + END).replace(b"\r\n", b"\n"), id="bare LF everywhere"),
        pytest.param(MODEL + FILE + OTHER.replace(b"--XX\r\n", b"--XXY\r\n") + END, id="a longer boundary"),
        pytest.param(MODEL + FILE + OTHER.replace(b"--XX\r\n", b"--XX \r\n") + END, id="a space behind the boundary"),
        pytest.param(MODEL + FILE + OTHER.replace(b"--XX\r\n", b"--XX--\r\n") + END, id="an end in the middle"),
        pytest.param(MODEL + FILE, id="no end"),
        pytest.param(b"--XX--\r\n", id="nothing"),
        pytest.param(MODEL.replace(b'"model"', b"model") + FILE + END, id="no quotes"),
        pytest.param(MODEL + OTHER.replace(b'"model"', b'"mo\\del"') + FILE + END, id="an escape"),
        pytest.param(MODEL + OTHER.replace(b'"model"', b'"mo%64el"') + FILE + END, id="a percent sign"),
        pytest.param(MODEL.replace(b'"model"', b'"model"; name="x"') + FILE + END, id="two names"),
        pytest.param(MODEL.replace(b'"model"', b'"model"; name*=utf-8\'\'x') + FILE + END, id="a name in another charset"),
        pytest.param(MODEL + part("file", SOUND, file="a; name=model") + END, id="a name inside a file's name"),
        pytest.param(MODEL + part("file", SOUND, file='a\\"; name=\\"model') + END, id="quotes inside a file's name"),
        pytest.param(MODEL.replace(b": form", b":\r\n form") + FILE + END, id="a folded header"),
        pytest.param(MODEL.replace(b": form", b": \tform") + FILE + END, id="a tab"),
        pytest.param(MODEL.replace(b"Content-Disposition:", b"Content-Disposition :") + FILE + END, id="a space in a header"),
        pytest.param(part("model", b"heard", more=b'Content-Disposition: form-data; name="x"\r\n') + FILE + END, id="two dispositions"),
        pytest.param(part("model", b"ZGVhcg==", more=b"Content-Transfer-Encoding: base64\r\n") + FILE + END, id="an encoding"),
        pytest.param(part("model", b"heard", more=b"Content-Type: text/plain; charset=utf-16\r\n") + FILE + END, id="a charset"),
        pytest.param(part("_charset_", b"utf-16") + MODEL + FILE + END, id="a charset for all"),
        pytest.param(part("model", b"heard", file="m") + FILE + END, id="a model as a file"),
        pytest.param(MODEL + part("file", b"http://there/") + END, id="a file as text"),
        pytest.param(MODEL + part("prompt", b"Hi", file="p") + FILE + END, id="a text as a file"),
        pytest.param(MODEL + part("file", b"--YY\r\n", file="a", more=b"Content-Type: multipart/mixed; boundary=YY\r\n") + END, id="a form in a form"),
        pytest.param(b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\n--XX\r\n' + FILE[6:] + END, id="no content"),
        pytest.param(MODEL + b"".join(part(f"x{number}", b"") for number in range(200)) + FILE + END, id="many parts"),
        pytest.param(part("model", b"heard\x00") + FILE + END, id="a NUL"),
        pytest.param(part("model", b"heard\n") + FILE + END, id="a line end in the model"),
        pytest.param(part("model", b" heard") + FILE + END, id="a space in the model"),
    ],
)  # fmt: skip
async def test_a_form_that_two_readers_could_read_in_two_ways_reaches_no_provider(
    session: aiohttp.ClientSession, upstreams: Upstreams, body: bytes
) -> None:
    upstreams.answer(text="Hi", usage={"type": "duration", "seconds": 1})
    async with session.post(TRANSCRIPTIONS, data=body, headers={"content-type": TYPE}) as response:
        answer = await response.json()
    assert (response.status, upstreams.first.bodies, upstreams.second.bodies) == (400, [], [])
    assert answer["error"]["code"] in {"invalid_form", "invalid_model"}


@pytest.mark.parametrize("is_refused_first", [False, True])
async def test_each_provider_gets_its_own_name_for_the_model_and_every_other_byte_as_it_came(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams, is_refused_first: bool
) -> None:
    upstreams.answer(text="Hi", usage={"type": "duration", "seconds": 9})
    upstreams.first.status = 500 if is_refused_first else 200
    # Model last, text with a type in front of its name, unknown fields, a list: as clients send it.
    text = b'--XX\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n'
    before = FILE + text + part("include[]", b"logprobs") + part("include[]", b"x") + part("unknown", b'"model"')
    headers = {"content-type": TYPE}
    for size in (1, 8_000_000):
        sent = before + part("unknown2", b"z" * size) + part("model", b"heard") + END
        async with session.post(TRANSCRIPTIONS, data=BytesIO(sent), headers=headers) as response:
            assert response.status == 200, await response.text()
        served, name = (upstreams.first, "first-heard")
        if is_refused_first:
            served, name = upstreams.second, "the-second-name-of-heard"
        expected = before + part("unknown2", b"z" * size) + part("model", name.encode()) + END
        assert served.bodies.pop() == expected
        assert served.headers[-1]["Content-Type"] == TYPE
        assert not any(header.lower().startswith("x-tg-") for header in served.headers[-1])
        assert served.paths[-1] == TRANSCRIPTIONS
        assert (await charged(stack, response.headers[HEADER]))[:3] == ("settled", "provider", {"audio_second": 9})


async def test_what_a_json_endpoint_is_sent_stays_json(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    del upstreams
    await stack.forget_provider_requests()
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]})
    async with session.post("/v1/chat/completions", data=body, headers={"content-type": TYPE}) as response:
        assert response.status == 200
    [received] = await stack.provider_requests()
    assert received["headers"]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("answer", "model", "expected"),
    [
        ({"text": "Hi", "duration": 8.47}, "heard", ("settled", "provider", {"audio_second": 9})),
        ({"text": "Hi", "duration": "8.0"}, "heard", ("settled", "provider", {"audio_second": 8})),
        ({"text": "Hi", "duration": 8, "usage": {"type": "duration", "seconds": 7}}, "heard", ("settled", "provider", {"audio_second": 7})),
        ({"text": '"duration":9', "usage": {"seconds": 0.2}}, "heard", ("settled", "provider", {"audio_second": 1})),
        ({"text": "Hi"}, "heard", ("estimated", "estimated", {"audio_second": 9})),
        ({"text": "Hi", "x_groq": {"duration": 9}}, "heard", ("estimated", "estimated", {"audio_second": 9})),
        ({"text": "Hi"}, "heard-by-tokens", ("estimated", "estimated", {"audio_input": 80, "input": 23, "output": 1})),
    ],
)  # fmt: skip
async def test_what_providers_tell_of_the_length_or_not_at_all(
    stack: Stack,
    session: aiohttp.ClientSession,
    upstreams: Upstreams,
    answer: dict[str, Any],
    model: str,
    expected: tuple[str, str, dict[str, int]],
) -> None:
    upstreams.answer(**answer)
    async with session.post(TRANSCRIPTIONS, data=form(FILE, model=model), headers={"content-type": TYPE}) as response:
        assert response.status == 200, await response.text()
    found = await charged(stack, response.headers[HEADER])
    assert found[:2] == expected[:2]
    if model == "heard":
        assert found[2] == expected[2]
    else:
        assert found[2].keys() == expected[2].keys()


async def test_no_script_failed(stack: Stack) -> None:
    assert sum((await stack.envoy_stats(r"lua\..*errors$")).values()) == 0
