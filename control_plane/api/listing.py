"""One page of a list: where it begins, what is on it, and where the next one begins."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from control_plane.api.operation import Call
from control_plane.api.paging import Page, PageQuery

ItemT = TypeVar("ItemT", bound=BaseModel)

Read = Callable[[int | None, int], Awaitable[Sequence[tuple[int, ItemT]]]]
"""Items behind a position, the beginning for None, up to a number; each with its own position."""


async def page_of(call: Call, query: PageQuery, page: type[Page[ItemT]], read: Read[ItemT]) -> Page[ItemT]:
    """The page that a call asks for. One item more than it holds is read, to know whether there is a next one.

    Raises:
        InvalidFieldsError: the cursor is none of this list.
    """
    cursors, path = call.services.cursors, call.request.path
    items = await read(cursors.read(path, query.cursor), query.limit + 1)
    shown = items[: query.limit]
    cursor = cursors.write(path, shown[-1][0]) if len(items) > query.limit else None
    return page(data=[item for _, item in shown], next_cursor=cursor)
