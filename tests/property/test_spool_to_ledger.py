"""From a spool file to the ledger on a real Postgres: however the spool is read, repeated, cut or shuffled, the books agree.

Every round draws its own lines from a seed, which a failure prints; `--hypothesis-seed` is not needed to run it again.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import structlog
from prometheus_client import CollectorRegistry

from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_claim import SpoolClaim
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.sink import Sink
from billing_sink.spool import SpoolTruncatedError
from gateway_core.spool_fields import SPOOL_FILE
from gateway_core.usage import Meter
from tests.support.ledger import Books, read_books
from tests.support.spool_lines import (
    CHAT_USAGE,
    GRANT,
    REQUEST,
    Json,
    chat_stream,
    failed_attempt,
    line,
    messages_stream,
    not_a_request,
    periodic,
    refused,
    render,
)

ORG = "org_demo"
BALANCE = 10**12
HOLD = int(str(GRANT["hold_nano_usd"]))
SEEDS = range(6)

Rows = frozenset[tuple[object, ...]]


@dataclass(frozen=True)
class Outcome:
    """What a spool came to.

    Attributes:
        requests: every row of billing.requests, without the columns that tell when and in which order it was written.
        attempts: every row of billing.attempts, likewise.
        quarantined: every quarantined line with its reason.
    """

    books: Books
    requests: Rows
    attempts: Rows
    quarantined: Rows


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / SPOOL_FILE


@pytest.fixture
async def priced(pool: asyncpg.Pool) -> asyncpg.Pool:
    """The database with two models and their prices, in force before the revision the lines were admitted under."""
    await pool.execute(
        """
        INSERT INTO catalog.providers (name, kind, base_url)
        VALUES ('openai', 'openai', 'http://o'), ('anthropic', 'anthropic', 'http://a');
        INSERT INTO catalog.models (name, owned_by, context_tokens, max_output_tokens)
        VALUES ('gpt-4o-mini', 'openai', 1, 1), ('claude-sonnet-4-5', 'anthropic', 1, 1);
        INSERT INTO catalog.deployments (model, provider, upstream_model)
        VALUES ('gpt-4o-mini', 'openai', 'm'), ('claude-sonnet-4-5', 'anthropic', 'm');
        """
    )
    await pool.executemany(
        """
        INSERT INTO catalog.prices
        SELECT model, provider, 1, $1, 100000, 150000 FROM catalog.deployments
        """,
        [(meter,) for meter in (Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT)],
    )
    return pool


async def start_over(pool: asyncpg.Pool, lines: Sequence[Json]) -> None:
    """An organisation with money, a hold for each admitted request, and nothing else ever recorded."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # past the append-only triggers
        await connection.execute(
            """
            DELETE FROM billing.attempts; DELETE FROM billing.entries; DELETE FROM billing.transactions; DELETE FROM billing.requests;
            DELETE FROM billing.holds; DELETE FROM billing.quarantine; DELETE FROM billing.spool_offsets;
            DELETE FROM billing.accounts WHERE kind = 'balance';
            UPDATE billing.accounts SET posted_nano_usd = 0, held_nano_usd = 0;
            """
        )
    await pool.execute("SELECT billing.open_balance($1)", ORG)
    await pool.execute("SELECT billing.credit($1, $2, 'test')", ORG, BALANCE)
    admitted = {str(each["request_id"]) for each in lines if each.get("grant") == GRANT}
    await pool.executemany(
        "SELECT billing.place_hold($1, $2, 'key_demo', $3, 'infinity')",
        [(request_id, ORG, HOLD) for request_id in sorted(admitted)],
    )


def write(path: Path, spool: bytes) -> None:
    """What Envoy has written so far, from the beginning."""
    path.write_bytes(spool)


def append(path: Path, written: bytes) -> None:
    """What Envoy writes next."""
    with path.open("ab") as file:
        file.write(written)


def sink(path: Path, claim: SpoolClaim, batch_lines: int) -> Sink:
    """A sink that has just been started: it remembers nothing of what another one did."""
    return Sink(
        path,
        claim,
        PostgresLedger(claim),
        CurrentPrices(PostgresPrices(claim)),
        batch_lines=batch_lines,
        registry=CollectorRegistry(),
        log=structlog.get_logger(),
    )


async def outcome(pool: asyncpg.Pool) -> Outcome:
    requests = await pool.fetch(
        """
        SELECT request_id, input_hash, outcome, late, usage_source, org_id, key_id, endpoint, model, provider,
               price_version, stream, status, error_code, started_at, meters, cost_nano_usd, price_nano_usd,
               absorbed_nano_usd, usage_raw
        FROM billing.requests
        """
    )
    attempts = await pool.fetch(
        """
        SELECT request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags, response_details,
               duration_ms, bytes_received, bytes_sent
        FROM billing.attempts
        """
    )
    assert len(attempts) == len(set(map(tuple, attempts)))
    quarantined = await pool.fetch("SELECT line, reason FROM billing.quarantine")
    return Outcome(
        await read_books(pool),
        frozenset(map(tuple, requests)),
        frozenset(map(tuple, attempts)),
        frozenset(map(tuple, quarantined)),
    )


async def read_at_once(
    path: Path, pool: asyncpg.Pool, claim: SpoolClaim, lines: Sequence[Json], spool: bytes
) -> Outcome:
    await start_over(pool, lines)
    write(path, spool)
    await sink(path, claim, 10_000).drain()
    return await outcome(pool)


def some_lines(rng: random.Random) -> list[Json]:
    """Requests of every kind, each once, some of them behind attempts that failed, before or after which they are written."""
    written: list[Json] = []
    for n in range(rng.randint(8, 25)):
        request_id = f"request-{n}"
        for number in range(rng.choice([0, 0, 1, 3])):
            moment = f"2026-11-23T21:58:0{number}.{rng.randrange(10**6):06d}Z"
            written.insert(
                rng.randint(0, len(written)),
                failed_attempt(request_id, start_time=moment, status=rng.choice([0, 429, 500])),
            )
        kind = rng.randrange(9)
        if kind <= 1:
            usage = {"prompt_tokens": rng.randrange(1000), "completion_tokens": rng.randrange(1000)}
            written.append(line(request_id, usage_first=usage))
        elif kind == 2:
            written.append(chat_stream(request_id, usage_first=None, sse_events=rng.randrange(100)))
        elif kind == 3:
            written.append(messages_stream(request_id, usage_last={"output_tokens": rng.randrange(10**6)}))
        elif kind == 4:
            written.append(messages_stream(request_id, usage_last=None))
        elif kind == 5:
            written.append(refused(request_id))
        elif kind == 6:
            written.append(line(request_id, status=rng.choice([429, 500, 503]), usage_first=None))
        elif kind == 7:
            written.append(periodic(request_id))
        else:
            written.append(line(request_id, usage_first={**CHAT_USAGE, "prompt_tokens": -1}))
    return written


def as_spool(lines: Sequence[Json]) -> bytes:
    return b"".join(render(each) + b"\n" for each in lines)


@pytest.mark.parametrize("seed", SEEDS)
async def test_batches_may_end_at_any_line_and_the_sink_may_be_killed_between_them(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lines = some_lines(rng)
    expected = await read_at_once(path, priced, claim, lines, as_spool(lines))

    await start_over(priced, lines)
    write(path, as_spool(lines))
    while await sink(path, claim, rng.randint(1, 5)).step():
        pass

    assert await outcome(priced) == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_spool_may_be_read_while_it_grows_by_any_number_of_bytes(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lines = some_lines(rng)
    spool = as_spool(lines)
    expected = await read_at_once(path, priced, claim, lines, spool)

    await start_over(priced, lines)
    write(path, b"")
    running = sink(path, claim, rng.randint(1, 5))
    while spool:
        size = rng.randint(1, 900)
        append(path, spool[:size])
        spool = spool[size:]
        if rng.random() < 0.3:
            running = sink(path, claim, rng.randint(1, 5))
        await running.drain()

    assert await outcome(priced) == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_lines_may_come_three_times_and_in_any_order(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lines = some_lines(rng)
    expected = await read_at_once(path, priced, claim, lines, as_spool(lines))

    shuffled = [*lines, *lines, *lines]
    rng.shuffle(shuffled)
    await start_over(priced, lines)
    write(path, as_spool(shuffled))
    while await sink(path, claim, rng.randint(1, 7)).step():
        pass

    assert await outcome(priced) == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_spool_that_is_read_again_under_another_identity_changes_nothing(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lines = some_lines(rng)
    expected = await read_at_once(path, priced, claim, lines, as_spool(lines))

    # Its first line is another one, so nothing of it counts as read.
    write(path, as_spool([periodic("nobody"), *lines]))
    await sink(path, claim, 3).drain()

    assert await outcome(priced) == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_spool_cut_in_the_middle_of_a_line_and_continued_loses_only_that_line(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lines = [line("first"), *some_lines(rng)]
    lost = rng.randrange(1, len(lines) - 1)
    before, after = as_spool(lines[:lost]), as_spool(lines[lost + 1 :])
    whole = render(lines[lost])
    torn = whole[: rng.randint(1, len(whole) - 1)]
    expected = await read_at_once(path, priced, claim, lines, before + after)

    # Envoy dies in the middle of a line; the next one appends to the same file.
    await start_over(priced, lines)
    write(path, before + torn)
    await sink(path, claim, 4).drain()
    append(path, after)
    await sink(path, claim, 4).drain()

    found = await outcome(priced)
    assert (found.books, found.requests, found.attempts) == (expected.books, expected.requests, expected.attempts)
    [(quarantined, reason)] = found.quarantined - expected.quarantined
    assert quarantined == torn
    assert str(reason).startswith("torn")


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_line_is_a_request_an_attempt_a_quarantine_row_or_a_request_still_running(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    rubbish = [b"", b"rubbish", b"\xff\xfe\x00", b"{}", render(line("x", user_agent="\x00")), render(line("y"))[:-9]]
    lines = [*some_lines(rng), not_a_request(), not_a_request(), refused("z", grant=None, request=None)]
    contents = [*map(render, lines), *rubbish, render(line("w", attempts=2**40))]
    rng.shuffle(contents)
    await start_over(priced, lines)
    spool = b"".join(content + b"\n" for content in contents)
    write(path, spool)

    while await sink(path, claim, rng.randint(1, 5)).step():
        pass

    requests = await priced.fetchval("SELECT count(*) FROM billing.requests")
    quarantined = await priced.fetchval("SELECT count(*) FROM billing.quarantine")
    running = sum(b'"type":"DownstreamPeriodic"' in content for content in contents)
    attempts = await priced.fetchval("SELECT count(*) FROM billing.attempts")
    assert requests + attempts + quarantined + running == len(contents)
    assert await priced.fetchval("SELECT byte_offset FROM billing.spool_offsets") == len(spool)
    await read_books(priced)


async def test_every_hold_of_a_finished_request_ends_with_it(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path
) -> None:
    lines = [
        line("settled"),
        chat_stream("estimated", usage_first=None),
        line("released", status=500),
        periodic("held"),
    ]
    found = await read_at_once(path, priced, claim, lines, as_spool(lines))
    states = await priced.fetch("SELECT request_id, state FROM billing.holds")
    assert {(row["request_id"], row["state"]) for row in states} == {
        (each["request_id"], each["request_id"]) for each in lines
    }
    assert found.books.held == HOLD
    assert found.books.balance + found.books.revenue == BALANCE


async def test_the_same_request_with_another_line_is_quarantined_in_whatever_batch_it_comes(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path
) -> None:
    lines = [line("a"), line("a", bytes_sent=1), line("b")]
    for batch_lines in (1, 10):
        await start_over(priced, lines)
        write(path, as_spool(lines))
        while await sink(path, claim, batch_lines).step():
            pass
        found = await outcome(priced)
        assert {row[0] for row in found.requests} == {"a", "b"}
        [(quarantined, reason)] = found.quarantined
        assert quarantined == render(lines[1])
        assert "conflict" in str(reason)


async def test_another_spool_in_the_place_of_the_first_is_read_from_its_beginning_by_a_sink_that_goes_on(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path
) -> None:
    first, second = [line("a")], [line("b"), line("c"), line("d", request={**REQUEST, "body_bytes": 9})]
    await start_over(priced, [*first, *second])
    write(path, as_spool(first))
    running = sink(path, claim, 10)
    await running.drain()
    write(path, as_spool(second))
    await running.drain()
    assert {row[0] for row in (await outcome(priced)).requests} == {"a", "b", "c", "d"}


async def test_a_spool_that_lost_lines_already_in_the_ledger_stops_the_sink(
    priced: asyncpg.Pool, claim: SpoolClaim, path: Path
) -> None:
    lines = [line("a"), line("b")]
    await start_over(priced, lines)
    write(path, as_spool(lines))
    await sink(path, claim, 10).drain()
    write(path, as_spool(lines[:1]))
    with pytest.raises(SpoolTruncatedError):
        await sink(path, claim, 10).drain()


async def test_a_spool_that_is_not_there_yet_is_no_trouble(priced: asyncpg.Pool, claim: SpoolClaim, path: Path) -> None:
    waiting = sink(path, claim, 10)
    assert not await waiting.step()
    await start_over(priced, [line("a")])
    write(path, as_spool([line("a")]))
    assert await waiting.step()
    assert len((await outcome(priced)).requests) == 1
