"""One process after the other is killed with kill -9 while requests come; after each, everything is accounted for."""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from bench.chaos import books
from bench.chaos.books import Watch
from bench.chaos.load import Customer, Load, served_again_s
from bench.chaos.verdict import Seen, Verdict, judge
from gateway_core.mode import Mode
from tests.support.stack import Stack, eventually

PROCESSES: Final = ("billing_sink", "ext_authz", "postgres", "envoy", "clickhouse", "valkey", "control_plane")
ALL: Final = "all at once"
VICTIMS: Final[Mapping[str, Sequence[str]]] = {**{name: (name,) for name in PROCESSES}, ALL: PROCESSES}
"""What is killed in one round, by what it is called."""
BEFORE_S: Final = (0.3, 2.0)
AFTER_S: Final = (0.3, 1.0)
BACK_S_MAX: Final = 60.0
SETTLED_S_MAX: Final = 2.0
SCARCE_USD: Final = "0.003"
"""Some 35 requests at once, and far too little for a slice."""


BEYOND_REACH: Final = 1_000_000_000


class KilledTooManyError(AssertionError):
    """A process ended that nobody had killed."""


@dataclass(frozen=True, slots=True)
class Customers:
    """Who asks.

    Attributes:
        wealthy: spends slices that last.
        playing: the same with play money.
        modest: spends slices that are used up quickly, with a key whose limits are counted and never reached.
        scarce: near the end of its money; each of its requests has a hold of its own.
    """

    wealthy: Customer
    playing: Customer
    modest: Customer
    scarce: Customer

    @property
    def all(self) -> Sequence[Customer]:
        """Every one of them."""
        return (self.wealthy, self.playing, self.modest, self.scarce)

    @classmethod
    async def made(cls, stack: Stack) -> "Customers":
        """In a stack that has just been started."""
        return cls(
            wealthy=Customer("org_wealthy", await stack.make_key("wealthy", balance="1000")),
            playing=Customer("org_playing", await stack.make_key("playing", balance="1", mode=Mode.TEST)),
            modest=Customer("org_modest", await _with_limits(stack, "modest", balance="2")),
            scarce=Customer("org_scarce", await stack.make_key("scarce", balance=SCARCE_USD)),
        )


async def _with_limits(stack: Stack, name: str, *, balance: str) -> str:
    key = await stack.make_key(name, balance=balance)
    async with stack.database() as database:
        await database.execute(
            "UPDATE accounts.api_keys SET requests_per_minute_max = $2, tokens_per_minute_max = $2, concurrency_max = $2"
            " WHERE key_id = $1",
            *(f"key_{name}", BEYOND_REACH),
        )
    return key


@dataclass(frozen=True, slots=True)
class Round:
    """One kill, and what it did.

    Attributes:
        victim: a name in `VICTIMS`.
        back_s: until it was there again and ready.
        served_s: until everybody who was refused was served again; 0 if nobody was.
        refused: requests that were refused or cut off by it.
    """

    victim: str
    back_s: float
    served_s: float
    refused: int
    verdict: Verdict


def order(rounds: int, rng: random.Random) -> Iterator[str]:
    """Every name in `VICTIMS` once in each round, in an order of its own."""
    for _ in range(rounds):
        yield from rng.sample(list(VICTIMS), len(VICTIMS))


async def kill_round(stack: Stack, load: Load, customers: Customers, victim: str, rng: random.Random) -> Round:
    """Kill under load, wait until what was killed is back, and look everything through.

    Raises:
        KilledTooManyError: something else ended as well.
        WrongBooksError: something is in the books that must not be.
    """
    await books.fill_up(stack, customers.scarce.org_id, SCARCE_USD)
    before, begin, killed = stack.endpoints["pids"], len(load.seen), VICTIMS[victim]
    async with load.running():
        await asyncio.sleep(rng.uniform(*BEFORE_S))
        for process in killed:
            stack.kill(process)
        killed_s = monotonic()

        async def is_back() -> bool:
            pids = stack.endpoints["pids"]
            return all(pids.get(process, before[process]) != before[process] for process in killed)

        await eventually(is_back, deadline_s=BACK_S_MAX)
        back_s = monotonic() - killed_s
        await asyncio.sleep(rng.uniform(*AFTER_S))

        async def is_served() -> bool:
            return all(_is_served(load.seen[begin:], customer, killed_s + back_s) for customer in customers.all)

        await eventually(is_served, deadline_s=BACK_S_MAX)
    _require_unharmed(stack, before, but=victim)
    seen = load.seen[begin:]
    return Round(
        victim=victim,
        back_s=back_s,
        served_s=served_again_s(seen, killed_s),
        refused=sum(each.is_refused for each in seen),
        verdict=await account_for(stack, seen, envoy_killed_s=killed_s if "envoy" in killed else None),
    )


async def account_for(stack: Stack, seen: Sequence[Seen], *, envoy_killed_s: float | None = None) -> Verdict:
    """Everything about requests that have ended, and about the books.

    Raises:
        WrongBooksError: something is in the books that must not be.
    """
    await stack.spool_read()
    await books.check(stack)
    return judge(seen, await books.recorded(stack, seen), envoy_killed_s=envoy_killed_s)


def _is_served(seen: Sequence[Seen], customer: Customer, since_s: float) -> bool:
    return any(each.org_id == customer.org_id and each.began_s > since_s and not each.is_refused for each in seen)


def _require_unharmed(stack: Stack, before: dict[str, int], *, but: str) -> None:
    after = stack.endpoints["pids"]
    if ended := [name for name, pid in before.items() if name not in VICTIMS[but] and after.get(name) != pid]:
        raise KilledTooManyError(f"{but} was killed, and these ended too: {ended}")


@dataclass(frozen=True, slots=True)
class Settlement:
    """From the end of a request to its row in the ledger, in seconds, when nothing is killed."""

    requests: int
    p50_s: float
    p99_s: float
    max_s: float

    @property
    def is_good(self) -> bool:
        """Whether all of them were there in time."""
        return self.requests > 0 and self.max_s < SETTLED_S_MAX


async def settlement(stack: Stack, load: Load, customers: Customers, watch: Watch, seconds: float) -> Settlement:
    """Measure it under the same load.

    Raises:
        WrongBooksError: something is in the books that must not be.
    """
    await books.fill_up(stack, customers.scarce.org_id, SCARCE_USD)
    begin = len(load.seen)
    async with load.running():
        await asyncio.sleep(seconds)
    seen = load.seen[begin:]
    verdict = await account_for(stack, seen)
    assert verdict.is_good, verdict
    # A client may hear of the end of its answer after the ledger does.
    waited_s = sorted(max(0.0, watch.first_seen_s[each.client_request_id] - each.ended_s) for each in seen)
    return Settlement(
        requests=len(waited_s),
        p50_s=waited_s[len(waited_s) // 2],
        p99_s=waited_s[len(waited_s) * 99 // 100],
        max_s=waited_s[-1],
    )
