"""The book of prices that is read on when somebody needs what is newer."""

import asyncio

from billing_sink.current_prices import CurrentPrices
from billing_sink.prices import PriceBook
from gateway_core.ids import PriceVersion


class Published:
    """One revision more at each reading."""

    readings = 0

    async def read(self, known: PriceBook) -> PriceBook:
        await asyncio.sleep(0)
        self.readings += 1
        return known.with_newer(PriceVersion(known.as_of + 1), (), (), ())


async def test_what_is_known_is_not_read_again() -> None:
    published = Published()
    prices = CurrentPrices(published)
    assert (await prices.at(PriceVersion(0))).as_of == 0
    assert (await prices.at(PriceVersion(1))).as_of == 1
    assert (await prices.at(PriceVersion(1))).as_of == 1
    assert published.readings == 1


async def test_all_who_need_what_is_newer_at_once_share_one_reading() -> None:
    published = Published()
    prices = CurrentPrices(published)
    books = await asyncio.gather(*(prices.at(PriceVersion(1)) for _ in range(5)))
    assert published.readings == 1
    assert all(book is prices.book for book in books)


async def test_the_newest_is_read_whatever_is_known() -> None:
    prices = CurrentPrices(Published())
    assert [(await prices.newest()).as_of for _ in range(3)] == [1, 2, 3]
