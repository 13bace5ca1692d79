"""What `make failover` does ten thousand times: a provider that fails 30 % of the time, with a good one behind it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.failover import FAILING, SUCCESS_MIN, Findings, run
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = 2000
SEED = 20260101


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def findings(stack: Stack) -> AsyncIterator[Findings]:
    yield await run(stack, requests=REQUESTS, seed=SEED)


async def test_hardly_anybody_notices(findings: Findings) -> None:
    assert sum(findings.planned.values()) == pytest.approx(REQUESTS * FAILING, rel=0.15)
    assert findings.success >= SUCCESS_MIN, findings


async def test_each_request_has_one_row_and_each_failed_attempt_too(findings: Findings) -> None:
    assert findings.rows == REQUESTS
    assert findings.attempts >= sum(findings.planned.values())


async def test_nothing_is_charged_twice_and_all_of_it_by_the_usage_and_price_of_who_delivered(
    findings: Findings,
) -> None:
    assert findings.doubled == 0
    assert findings.charges == sum(findings.answered.values())
    assert findings.charged_nano_usd == findings.expected_nano_usd
    assert findings.is_good
