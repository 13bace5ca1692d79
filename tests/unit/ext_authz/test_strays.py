"""What Envoy gives back to another process than the one that has lent it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry

from ext_authz.leases import LeaseId, Unspent, parse_unspent
from ext_authz.strays import GATHERED_S, TOLD_MAX, WAITING_MAX, Strays
from tests.support.admission import Others


def unspent(number: int) -> Unspent:
    return Unspent(LeaseId(f"lease_{number:016}"), 255)


@asynccontextmanager
async def telling(others: Others, registry: CollectorRegistry) -> AsyncIterator[Strays]:
    strays = Strays(others, registry=registry, log=structlog.get_logger())
    task = asyncio.create_task(strays.tell())
    yield strays
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_comes_within_a_moment_is_told_together_and_in_as_many_words_as_postgres_takes() -> None:
    others = Others()
    given = [unspent(number) for number in range(TOLD_MAX + 10)]
    async with telling(others, CollectorRegistry()) as strays:
        strays.put(given)
        await asyncio.sleep(GATHERED_S * 4)
    assert [each for told in others.told for each in parse_unspent(told)] == given
    assert len(others.told) == 2
    assert all(len(told) < 8000 for told in others.told)


async def test_what_nobody_can_be_told_of_is_counted_and_in_nobodys_way() -> None:
    others, registry = Others(), CollectorRegistry()
    others.trouble = OSError("gone")
    async with telling(others, registry) as strays:
        strays.put(unspent(number) for number in range(WAITING_MAX + 7))
        assert registry.get_sample_value("tollgate_ext_authz_unspent_lost_total") == 7
        await asyncio.sleep(GATHERED_S * 1.5)
        assert registry.get_sample_value("tollgate_ext_authz_unspent_lost_total") == 7 + TOLD_MAX
        others.trouble = None
        await asyncio.sleep(GATHERED_S * 2)
    assert others.told
