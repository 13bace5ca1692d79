"""Who may ask ClickHouse how much at once; nobody has to be there to answer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from control_plane.analytics.clickhouse_analytics import QUESTIONS_OF_ONE_MAX, ClickHouseAnalytics
from control_plane.analytics.plan import Statement
from control_plane.errors import ConflictError, ThrottledError
from control_plane.workbench import Workbench


async def test_an_organisation_that_asks_too_much_is_in_nobody_elses_way() -> None:
    with ThreadPoolExecutor(1) as threads:
        bench = Workbench(threads, places=1, waiting_max=2 * QUESTIONS_OF_ONE_MAX)
        analytics = ClickHouseAnalytics(None, bench)
        statement = Statement("SELECT 1", {})
        async with bench.place():
            waiting = [asyncio.create_task(analytics.rows(statement, "org_eager")) for _ in range(QUESTIONS_OF_ONE_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(ThrottledError):
                await analytics.rows(statement, "org_eager")
            waiting.append(asyncio.create_task(analytics.rows(statement, "org_other")))
            waiting.append(asyncio.create_task(analytics.rows(statement, None)))
            await asyncio.sleep(0)
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in told] == [ConflictError] * len(waiting)
        with pytest.raises(ConflictError):
            await analytics.rows(statement, "org_eager")
