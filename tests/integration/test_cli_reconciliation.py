"""`tollgate books reconcile` against the real API: any size of file, in and out, exit codes."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from tests.support.api import running_api
from tests.support.command_line import CommandLine
from tests.support.ledger import open_org, posting

DOLLAR = 1_000_000_000
HEADER = "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,model_permaslug,variant,api_key_name\n"


@pytest.fixture
async def operator(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[CommandLine]:
    """Of an installation with three requests of 2 dollars each on the first of January."""
    await open_org(pool, balance=20 * DOLLAR)
    finished = tuple(posting(f"r{number}", price=2 * DOLLAR) for number in range(3))
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, finished, ()))
    async with running_api(pool) as api:
        yield CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": await api.operator_token()})


async def test_a_file_of_many_megabytes_is_added_up_and_compared(operator: CommandLine) -> None:
    rows = "".join(
        f"gen-{number},2026-01-01 00:00:{number % 60:02d}.5,0.0001,1,0,acme/m-20260101,standard,{'k' * 60}\n"
        for number in range(60_000)
    )
    file = operator.directory / "activity.csv"
    file.write_text(HEADER + rows)
    assert file.stat().st_size > 6_000_000
    made = await operator.run(
        "books", "reconcile", "activity.csv", "--provider", "p", "--model", "acme/m-20260101=m", "--json"
    )
    assert made.code == 1, made.err
    assert made.json["format"] == "openrouter-activity"
    assert made.json["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    totals = {
        line["measure"]: (line["theirs"], line["ours"], line["verdict"]) for line in made.json["report"]["totals"]
    }
    assert totals == {
        "requests": ("60000", "3", "beyond"),
        "input_tokens": ("60000", "3", "beyond"),
        "cost_usd": ("6.00", "6.00", "within"),
    }


async def test_people_see_what_is_not_within_the_totals_and_which_names_were_matched(operator: CommandLine) -> None:
    file = "day,model,requests,cost_usd\n2026-01-01,m-2026-01-01,3,6\n2026-01-02,m,1,0\n"
    shown = await operator.run("books", "reconcile", "-", "--provider", "p", stdin=file)
    assert shown.code == 1, shown.err
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines == [
        "since model measure theirs ours difference percent verdict",
        "2026-01-02 m requests 1 0 -1 -100 only_theirs",
        "all all requests 4 3 -1 -25 beyond",
        "all all cost_usd 6.00 6.00 0.00 0 within",
    ]
    assert "Compared as one model: theirs m-2026-01-01; ours m." in shown.err
    assert "1 lines are not within 0.5 %; the totals differ by 25 % at most." in shown.err
    everything = await operator.run("books", "reconcile", "-", "--provider", "p", "--all", stdin=file)
    assert len(everything.out.splitlines()) == 6
    listed = await operator.done("books", "reconciliations")
    assert len(listed.out.splitlines()) == 3


async def test_what_is_within_ends_with_0_and_every_line_is_csv(operator: CommandLine) -> None:
    file = "day,model,requests\n2026-01-01,m,3\n"
    sheet = await operator.done("books", "reconcile", "-", "--provider", "p", "--csv", stdin=file)
    assert sheet.out.splitlines()[1].endswith("requests,3,3,0,0,within,0,0,0,0")
    [reconciliation_id] = {
        each["id"] for each in (await operator.done("books", "reconciliations", "--json")).json["data"]
    }
    again = await operator.done("books", "reconciliation-csv", str(reconciliation_id))
    assert again.out == sheet.out


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("a,b\n1,2\n", (), "standard input: line 1: its columns are those of no format"),
        ("day,model,input\n2026-01-01,m,1\n", ("--by", "hour"), "tells days only"),
        ("day,model,input\n2026-01-01,m,1\n", ("--threshold", "x"), "--threshold: "),
        ("day,model,input\n2026-01-01,m,1\n", ("--csv", "--json"), "two answers"),
        ("day,model,input\n2026-01-01,m,1\n", ("--model", "x"), "is not THEIRS=OURS"),
    ],
)
async def test_what_cannot_be_compared_ends_with_2(
    operator: CommandLine, file: str, options: tuple[str, ...], said: str
) -> None:
    refused = await operator.run("books", "reconcile", "-", "--provider", "p", *options, stdin=file)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
