"""The whole of it on one stack: a calm stretch, everything killed so many times, an outage of Postgres, and the end."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.chaos import books
from bench.chaos.books import Returned, Watch
from bench.chaos.load import Load
from bench.chaos.outage import Outage, outage
from bench.chaos.rounds import Customers, Round, Settlement, kill_round, order, settlement
from bench.chaos.verdict import judge
from tests.support.stack import Stack


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one run has seen."""

    settlement: Settlement
    rounds: Sequence[Round]
    outage: Outage
    returned: Returned
    watch: Watch

    @property
    def is_good(self) -> bool:
        """Whether everything is as it is promised. Wrong books have ended the run before."""
        return (
            self.settlement.is_good
            and all(each.verdict.is_good for each in self.rounds)
            and self.outage.is_good
            and not self.watch.below_zero
        )


async def run(
    stack: Stack, *, seed: int, rounds: int, outage_s: float, calm_s: float, say: Callable[[str], None]
) -> Findings:
    """Measure settlement, kill each, take Postgres away, and account for everything.

    Args:
        stack: fresh.
        seed: of the load, of the order and of the moments.
        rounds: how often each is killed.
        outage_s: how long Postgres is away.
        calm_s: how long settlement is measured.
        say: told how far it is.

    Raises:
        WrongBooksError: something is in the books that must not be.
        KilledTooManyError: something ended that was not killed.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    customers = await Customers.made(stack)
    load = Load(stack.url, customers.all, seed=seed)
    async with books.watching(stack) as watch:
        calm = await settlement(stack, load, customers, watch, calm_s)
        killed: list[Round] = []
        for victim in order(rounds, rng):
            found = await kill_round(stack, load, customers, victim, rng)
            killed.append(found)
            say(
                f"{len(killed)}: {victim} killed under {found.verdict.requests} requests, back after {found.back_s:.1f} s"
                f"{'' if found.verdict.is_good else f': {found.verdict}'}"
            )
        away = await outage(stack, load, customers, outage_s)
        expired = [seen for each in killed for seen in each.verdict.expired]
        returned = await books.end_all_waiting(stack, expired)
        await books.check(stack)
        # Once more, all that were answered: what was accounted for stays so.
        answered = [seen for seen in load.seen if seen.status is not None]
        again = judge(answered, await books.recorded(stack, answered))
        changed = set(again.lost) ^ {seen.client_request_id for seen in expired}
        assert not changed, sorted(changed)[:10]
        assert not again.doubled, again.doubled[:10]
    return Findings(calm, killed, away, returned, watch)
