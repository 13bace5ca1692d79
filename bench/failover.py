"""`make failover`: many requests through a provider that fails 30 % of the time in every way, with a good one behind it.

Prints a table, and ends with 1 if fewer than 99.9 % were answered well, or if anything is missing in the ledger, charged twice or
charged otherwise than by the usage of who delivered.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import aiohttp
from rich.console import Console
from rich.table import Table

from tests.support.faulty_provider import Exchange, Fault, deliver, fail, faulty_provider
from tests.support.stack import Stack, add_model, add_provider, running_stack, wait_until_routed

FAULTS: Final = (
    *(Fault.RATE_LIMITED, Fault.BROKEN, Fault.UNAVAILABLE, Fault.OVERLOADED),
    *(Fault.RESET, Fault.SILENT, Fault.MALFORMED),
)
"""Those before the headers of an answer; behind them nothing is tried again."""
FAILING: Final = 0.3
SUCCESS_MIN: Final = 0.999
FIRST_BYTE_TIMEOUT_MS: Final = 2000
AT_ONCE: Final = 64
FLAKY, GOOD = "flaky-first", "flaky-behind"
NANO_USD_PER_TOKEN: Final = {FLAKY: 2, GOOD: 3}
MODEL: Final = "flaky"


@dataclass(frozen=True, slots=True)
class Planned:
    """One request: how it fails at the first provider, if it does, and what is counted where it does not."""

    client_request_id: str
    streamed: bool
    fault: Fault | None
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """All that is counted."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Findings:
    """What became of all of them.

    Attributes:
        answered: by the provider that delivered, those whose client had the whole of its answer.
        failed: by their status or what came in its place, the others.
        rows: in the ledger, and of them by outcome.
        attempts: that failed and are recorded, against those that were made to fail.
        charges: transactions, and requests with more than one.
        charged: what the ledger took, against usage times price of what clients had.
    """

    requests: int
    seconds: float
    planned: Mapping[str, int]
    answered: Mapping[str, int]
    failed: Mapping[str, int]
    rows: int
    outcomes: Mapping[str, int]
    attempts: int
    charges: int
    doubled: int
    charged_nano_usd: int
    expected_nano_usd: int

    @property
    def success(self) -> float:
        """The part of the requests that was answered well."""
        return sum(self.answered.values()) / self.requests

    @property
    def is_good(self) -> bool:
        """Whether all is as it is promised."""
        return (
            self.success >= SUCCESS_MIN
            and self.rows == self.requests
            and self.doubled == 0
            and self.charges == sum(self.answered.values())
            and self.charged_nano_usd == self.expected_nano_usd
            and self.attempts >= sum(self.planned.values())
        )


def plan(requests: int, seed: int) -> Mapping[str, Planned]:
    """The same seed plans the same."""
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    found = {}
    for number in range(requests):
        name = f"flaky-{seed}-{number}"
        fault = rng.choice(FAULTS) if rng.random() < FAILING else None
        found[name] = Planned(name, rng.random() < 0.5, fault, rng.randint(1, 2000), rng.randint(1, 50))  # noqa: PLR2004 - half
    return found


async def run(stack: Stack, *, requests: int, seed: int) -> Findings:
    """Ask all of them, a number at a time, and account for each."""
    planned = plan(requests, seed)

    async def flaky(exchange: Exchange) -> None:
        found = _planned(exchange, planned)
        await (_deliver(exchange, FLAKY, found) if found.fault is None else fail(exchange, found.fault))

    async def good(exchange: Exchange) -> None:
        await _deliver(exchange, GOOD, _planned(exchange, planned))

    async with AsyncExitStack() as running:
        for name, script in ((FLAKY, flaky), (GOOD, good)):
            provider = await running.enter_async_context(faulty_provider(script))
            await add_provider(stack, name, f"{provider.address}/v1", f"secret-of-{name}")
        await add_model(
            stack,
            MODEL,
            [(FLAKY, MODEL), (GOOD, MODEL)],
            nano_usd_per_mtok={name: price * 1_000_000 for name, price in NANO_USD_PER_TOKEN.items()},
            first_byte_timeout_ms=FIRST_BYTE_TIMEOUT_MS,
        )
        await wait_until_routed(stack, MODEL)
        headers = {"Authorization": f"Bearer {await stack.make_key('flaky', balance='100')}"}
        began_s, places = monotonic(), asyncio.Semaphore(AT_ONCE)
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(stack.url, headers=headers, connector=connector) as session:
            answers = await asyncio.gather(*(_ask(session, places, each) for each in planned.values()))
        seconds = monotonic() - began_s
    await stack.settled()
    return await _account(stack, planned, dict(zip(planned, answers, strict=True)), seconds)


def _planned(exchange: Exchange, planned: Mapping[str, Planned]) -> Planned:
    name: str = json.loads(exchange.body)["messages"][0]["content"]
    return planned[name]


async def _deliver(exchange: Exchange, provider: str, found: Planned) -> None:
    await deliver(
        exchange,
        provider,
        streamed=found.streamed,
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
    )


async def _ask(session: aiohttp.ClientSession, places: asyncio.Semaphore, planned: Planned) -> str:
    """The provider that delivered, or else what came."""
    body = {
        "model": MODEL,
        "max_tokens": 50,
        "stream": planned.streamed,
        "messages": [{"role": "user", "content": planned.client_request_id}],
    }
    headers = {"x-request-id": planned.client_request_id}
    async with places:
        try:
            async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
                text = await response.text()
        except aiohttp.ClientError as error:
            return type(error).__name__
    by = [provider for provider in NANO_USD_PER_TOKEN if f'"{provider}"' in text]
    return by[0] if response.ok and by else str(response.status)


async def _account(
    stack: Stack, planned: Mapping[str, Planned], answers: Mapping[str, str], seconds: float
) -> Findings:
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT request_id, outcome FROM billing.requests WHERE client_request_id = ANY ($1)", list(planned)
        )
        ids = [row["request_id"] for row in rows]
        charges = await database.fetch(
            """
            SELECT t.request_id, sum(e.amount_nano_usd)::bigint AS amount
            FROM billing.transactions t JOIN billing.entries e USING (transaction_id)
            WHERE t.request_id = ANY ($1) AND e.amount_nano_usd > 0 GROUP BY t.transaction_id, t.request_id
            """,
            ids,
        )
        attempts = await database.fetchval("SELECT count(*) FROM billing.attempts WHERE request_id = ANY ($1)", ids)
    delivered = {name: answer for name, answer in answers.items() if answer in NANO_USD_PER_TOKEN}
    return Findings(
        requests=len(planned),
        seconds=seconds,
        planned=Counter(each.fault for each in planned.values() if each.fault is not None),
        answered=Counter(delivered.values()),
        failed=Counter(answer for answer in answers.values() if answer not in NANO_USD_PER_TOKEN),
        rows=len(rows),
        outcomes=Counter(row["outcome"] for row in rows),
        attempts=attempts,
        charges=len(charges),
        doubled=len(charges) - len({row["request_id"] for row in charges}),
        charged_nano_usd=sum(row["amount"] for row in charges),
        expected_nano_usd=sum(planned[name].tokens * NANO_USD_PER_TOKEN[by] for name, by in delivered.items()),
    )


def lines(findings: Findings) -> Sequence[tuple[str, str]]:
    """The table."""
    return (
        ("requests", f"{findings.requests:,} in {findings.seconds:.0f} s, {AT_ONCE} at once, half of them streams"),
        ("failed at the first provider", _by_name(findings.planned)),
        ("answered well", f"{findings.success:.3%}: {_by_name(findings.answered)}"),
        ("not answered well", _by_name(findings.failed)),
        ("rows in the ledger", f"{findings.rows:,}: {_by_name(findings.outcomes)}"),
        ("failed attempts recorded", f"{findings.attempts:,}"),
        ("charges", f"{findings.charges:,}, twice {findings.doubled}"),
        ("charged", f"{findings.charged_nano_usd:,} nano-USD"),
        ("usage times price of who delivered", f"{findings.expected_nano_usd:,} nano-USD"),
    )


def _by_name(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "0"


async def _on_a_stack(requests: int, seed: int) -> Findings:
    with tempfile.TemporaryDirectory(prefix="tollgate-failover-") as directory:
        # Whoever fails so much would be left out, and then hardly anything would fail.
        async with running_stack(Path(directory) / "stack", TOLLGATE_PROVIDER_HEALTH="false") as stack:
            return await run(stack, requests=requests, seed=seed)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="make failover ARGS=...", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--seed", type=int, help="of an earlier run")
    arguments = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if arguments.seed is None else arguments.seed
    console = Console(width=160)
    console.print(f"seed {seed}")
    findings = asyncio.run(_on_a_stack(arguments.requests, seed))
    table = Table(show_header=False)
    for name, value in lines(findings):
        table.add_row(name, value)
    console.print(table)
    sys.exit(0 if findings.is_good else 1)


if __name__ == "__main__":
    main()
