"""What statements run on."""

from enum import StrEnum
from typing import TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

Connection = asyncpg.Connection | PoolConnectionProxy
"""One connection, on which transactions can be begun."""

RowT = TypeVar("RowT")

Database = asyncpg.Pool | Connection
"""The pool, for a statement of its own; or a connection, inside its transaction."""


def written(row: RowT | None) -> RowT:
    """The row of a statement that always has one, or what was read from it."""
    if row is None:
        raise LookupError("a statement that always returns a row returned none")
    return row


def locked(table: str = "") -> str:
    """The end of a SELECT that keeps its rows as they are until the end of the transaction."""
    return f"FOR NO KEY UPDATE OF {table}" if table else "FOR NO KEY UPDATE"


class Hold(StrEnum):
    """The end of a SELECT of what a right hangs on: a session, a token, a membership, an organisation."""

    NONE = ""
    KEPT = "FOR KEY SHARE"
    """Until the transaction ends. Who takes the right away waits; whoever else changes the row does not."""
    TAKEN = "FOR UPDATE"
    """To take it away: behind everybody who keeps it."""

    def of(self, table: str) -> str:
        """The same for one of several tables."""
        return f"{self} OF {table}" if self else ""
