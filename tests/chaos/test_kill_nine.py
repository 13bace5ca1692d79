"""What `make chaos` does ten times and for 30 s, shorter: every process killed under load, and an outage of Postgres."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.chaos.rounds import ALL, VICTIMS
from bench.chaos.run import Findings, run
from tests.support.stack import running_stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

SEED = 20260101
ROUNDS = 1
OUTAGE_S = 8.0
CALM_S = 8.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def findings(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Findings]:
    """Of one run on a stack of its own; whatever is wrong in the books, or dies without being killed, has ended it."""
    async with running_stack(tmp_path_factory.mktemp("chaos") / "data") as stack:
        yield await run(stack, seed=SEED, rounds=ROUNDS, outage_s=OUTAGE_S, calm_s=CALM_S, say=print)


async def test_whatever_is_killed_nothing_is_lost_doubled_or_let_through_unmetered(findings: Findings) -> None:
    assert sorted(each.victim for each in findings.rounds) == sorted(VICTIMS)
    for each in findings.rounds:
        assert each.verdict.is_good, (each.victim, each.verdict)
        assert each.verdict.outcomes["settled"] > 0
        # Nobody else's death takes a line along.
        assert "envoy" in VICTIMS[each.victim] or not each.verdict.expired


async def test_no_balance_is_ever_below_zero(findings: Findings) -> None:
    assert findings.watch.samples > 100
    assert findings.watch.below_zero == 0


async def test_only_who_needs_what_was_killed_notices_and_only_until_it_is_back(findings: Findings) -> None:
    for each in findings.rounds:
        assert each.victim in ("ext_authz", "postgres", "envoy", ALL) or each.refused == 0, each.victim
        assert each.served_s < 60


async def test_requests_settle_within_two_seconds_of_their_end(findings: Findings) -> None:
    assert findings.settlement.requests > 100
    assert findings.settlement.is_good, findings.settlement


async def test_while_postgres_is_away_who_is_known_is_served_from_slices_and_nobody_else(findings: Findings) -> None:
    away = findings.outage
    assert away.served > 50
    assert away.refused_of_plenty == 0
    assert away.unmetered == 0
    assert away.stranger == 503
    assert away.is_good, away


async def test_an_ext_authz_that_is_started_while_postgres_is_away_ends_and_admits_nobody(findings: Findings) -> None:
    assert findings.outage.newcomer_exit not in (0, None)


async def test_while_postgres_is_away_the_api_says_when_to_ask_again_and_envoy_keeps_its_configuration(
    findings: Findings,
) -> None:
    status, content_type, retry_after = findings.outage.api
    assert (status, content_type) == (503, "application/problem+json")
    assert retry_after is not None
    assert int(retry_after) > 0
    assert findings.outage.is_configuration_kept
