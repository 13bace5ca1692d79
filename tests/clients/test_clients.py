"""The clients that our users have, against the whole stack: each does what it does all day, and the ledger says what it was told.

A client runs in a program of its own (`programs/`), in an environment of its own, with its usual retries, and tells what it saw of each
request. Its organisation is its own as well, so the rows of that one are all that was asked.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from gateway_core.api_keys import PREFIX_BY_MODE, new_key
from gateway_core.mode import Mode
from tests.support.stack import SETTLE_DEADLINE_S, Stack, add_model, add_provider, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT: Final = Path(__file__).parents[2]
BIN: Final = ROOT / ".venv-clients" / "bin"
PROGRAMS: Final = Path(__file__).parent / "programs"
KINDS: Final = {"openai": "openai", "anthropic": "anthropic", "gemini": "gemini-native"}
MODELS: Final = {dialect: f"at-{dialect}" for dialect in KINDS}
EMBEDDING_MODEL: Final = "embedding"
SOLD_AS: Final = ("chat", "messages", "count_tokens", "responses", "generate", "stream_generate")
METERS: Final = ("input", "cached_input", "image_input", "output", "reasoning")
PROGRAM_S: Final = 100


@dataclass(frozen=True, slots=True)
class Program:
    """A client at work.

    Attributes:
        refusals: the errors of its own that it has for a key that nobody knows, for no money, and for a model that is not there.
    """

    file: str
    refusals: tuple[str, str, str]

    @property
    def command(self) -> tuple[Path, Path]:
        """How it is started."""
        return BIN / ("node" if self.file.endswith(".mjs") else "python"), PROGRAMS / self.file

    def __str__(self) -> str:
        return self.file


CLIENTS: Final = (
    Program("with_openai.py", ("AuthenticationError", "APIStatusError", "NotFoundError")),
    Program("with_openai.mjs", ("AuthenticationError", "APIError", "NotFoundError")),
    Program("with_anthropic.py", ("AuthenticationError", "PaymentRequiredError", "NotFoundError")),
    Program("with_anthropic.mjs", ("AuthenticationError", "PaymentRequiredError", "NotFoundError")),
    Program("with_google_genai.py", ("ClientError", "ClientError", "ClientError")),
    Program("with_google_genai.mjs", ("ApiError", "ApiError", "ApiError")),
    Program("with_langchain.py", ("OpenAIAuthenticationError", "APIStatusError", "OpenAIModelNotFoundError")),
    Program("with_litellm.py", ("AuthenticationError", "APIError", "NotFoundError")),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def models(stack: Stack) -> None:
    """A model at a provider of each dialect, sold on every endpoint that can be had there, and one that embeds."""
    for dialect, kind in KINDS.items():
        base = stack.simulator_url + ("/v1beta" if dialect == "gemini" else "/v1")
        await add_provider(stack, f"client-{dialect}", base, f"secret-of-{dialect}", kind)
        chain = [(f"client-{dialect}", f"{dialect}-x")]
        await add_model(stack, MODELS[dialect], chain, endpoints=SOLD_AS, meters=METERS)
        await wait_until_routed(stack, MODELS[dialect], "stream_generate")
    await add_model(
        stack, EMBEDDING_MODEL, [("client-openai", "embedding-x")], endpoints=["embeddings"], meters=["input"]
    )
    await wait_until_routed(stack, EMBEDDING_MODEL, "embeddings")


async def told_by(program: Program, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *program.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        async with asyncio.timeout(PROGRAM_S):
            out, problems = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{out.decode()}\n{problems.decode()}"
    return [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]


async def all_rows_of(stack: Stack, name: str, *, expected: int) -> list[asyncpg.Record]:
    """What an organisation has asked: no less than is expected, and all there is when nothing more comes."""
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    while len(await rows_of(stack, name)) < expected and time.monotonic() < deadline:  # noqa: ASYNC110 - it waits for other processes
        await asyncio.sleep(0.1)
    await stack.settled()
    async with stack.database() as connection:
        query = "SELECT reason, convert_from(line, 'UTF8') FROM billing.quarantine"
        set_aside = [tuple(row) for row in await connection.fetch(query)]
    assert set_aside == []
    return await rows_of(stack, name)


async def rows_of(stack: Stack, name: str) -> list[asyncpg.Record]:
    async with stack.database() as connection:
        query = "SELECT * FROM billing.requests WHERE org_id = $1 ORDER BY started_at"
        return await connection.fetch(query, f"org_{name}")


def refused_as_unknown(stack: Stack) -> int:
    """How many requests had a key that nobody knows."""
    spool = Path(stack.endpoints["spool_dir"]) / "access.jsonl"
    return sum('"invalid_api_key"' in line for line in spool.read_text(errors="replace").splitlines())


def of_usage(meters: Mapping[str, int]) -> list[int]:
    """What was charged, as far as every dialect tells it: uncached input, cached input, all output."""
    read, cached = meters.get("input", 0) + meters.get("image_input", 0), meters.get("cached_input", 0)
    return [read, cached, meters.get("output", 0) + meters.get("reasoning", 0)]


@pytest.mark.parametrize("program", CLIENTS, ids=str)
async def test_what_a_client_is_told_is_what_it_is_charged_once_and_errors_are_its_own(
    stack: Stack, program: Program
) -> None:
    name = program.file.replace("_", "-").replace(".", "-")
    key = await stack.make_key(name, balance="1")
    empty = await stack.make_key(f"{name}-empty", balance="0.000000001")
    unknown_before = refused_as_unknown(stack)
    told = await told_by(
        program,
        {
            "PATH": str(BIN),
            "TOLLGATE_GATEWAY": stack.url,
            "TOLLGATE_KEY": key,
            "TOLLGATE_UNKNOWN_KEY": new_key(PREFIX_BY_MODE[Mode.LIVE], secrets.token_bytes).get_secret_value(),
            "TOLLGATE_EMPTY_KEY": empty,
            "TOLLGATE_MODELS": json.dumps(MODELS),
            "TOLLGATE_EMBEDDING_MODEL": EMBEDDING_MODEL,
            # It looks for prices on the internet otherwise.
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        },
    )

    answers, refusals = told[:-3], told[-3:]
    assert {each["model"] for each in answers} >= set(MODELS.values())
    assert [each for each in answers if not each["said"]] == []
    *rows, no_model = await all_rows_of(stack, name, expected=len(answers) + 1)
    assert [row["model"] for row in rows] == [each["model"] for each in answers]
    for each, row in zip(answers, rows, strict=True):
        about = f"{each['call']} of {each['model']}"
        meters = json.loads(row["meters"])
        assert row["outcome"] == "settled", about
        assert row["model"] == each["model"], about
        assert row["price_nano_usd"] == sum(meters.values()), about
        assert each["usage"] in (of_usage(meters), [-1, -1, -1]), about

    assert [(each["call"], each["error"], each["status"]) for each in refusals] == [
        ("unknown key", program.refusals[0], 401),
        ("no money", program.refusals[1], 402),
        ("no model", program.refusals[2], 404),
    ]
    assert no_model["error_code"] == "model_not_found"
    [no_money] = await all_rows_of(stack, f"{name}-empty", expected=1)
    assert no_money["error_code"] == "insufficient_quota"
    assert refused_as_unknown(stack) == unknown_before + 1
