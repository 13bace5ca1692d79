"""How often the spending of an organisation is counted while pages ask for it."""

import asyncio

from control_plane.console.spending import KEPT_MAX, RecentSpending


class Desk:
    """Counts slowly, by a clock of its own."""

    def __init__(self, takes_s: float) -> None:
        self.seconds = 0.0
        self.takes_s = takes_s
        self.counted = 0

    def monotonic(self) -> float:
        return self.seconds

    async def count(self) -> int:
        self.counted += 1
        await asyncio.sleep(0)
        self.seconds += self.takes_s
        return self.counted


async def test_all_who_look_at_once_share_a_count() -> None:
    desk = Desk(takes_s=0.01)
    recent = RecentSpending(desk.monotonic)
    assert await asyncio.gather(*(recent.of("org_a", desk.count) for _ in range(20))) == [1] * 20
    assert await recent.of("org_b", desk.count) == 2
    desk.seconds += 2
    assert await recent.of("org_a", desk.count) == 3


async def test_what_takes_long_is_counted_for_a_tenth_of_the_time_at_most() -> None:
    desk = Desk(takes_s=3)
    recent = RecentSpending(desk.monotonic)
    while desk.seconds < 1000:
        await recent.of("org_a", desk.count)
        desk.seconds += 2
    assert 25 <= desk.counted <= 31


async def test_a_count_that_fails_is_made_again() -> None:
    desk = Desk(takes_s=0)
    recent = RecentSpending(desk.monotonic)

    async def fail() -> int:
        raise ConnectionError

    found = await asyncio.gather(recent.of("org_a", fail), recent.of("org_a", desk.count), return_exceptions=True)
    assert isinstance(found[0], ConnectionError)
    assert found[1] == 1


async def test_it_remembers_no_more_than_so_many() -> None:
    desk = Desk(takes_s=0)
    recent = RecentSpending(desk.monotonic)
    for number in range(KEPT_MAX + 1):
        await recent.of(f"org_{number}", desk.count)
    before = desk.counted
    await recent.of(f"org_{KEPT_MAX}", desk.count)
    assert desk.counted == before
    await recent.of("org_0", desk.count)
    assert desk.counted == before + 1
