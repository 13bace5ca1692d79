"""Asking ClickHouse: a few questions at a time, in threads of their own, each for a bounded time."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, ParamSpec, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from pydantic import SecretStr

from control_plane.analytics.plan import TIMEOUT_S, Statement
from control_plane.errors import (
    AnalyticsUnavailableError,
    ConflictError,
    InvalidField,
    InvalidFieldsError,
    ThrottledError,
)
from control_plane.workbench import RETRY_AFTER_S, Workbench

PLACES: Final = 4
WAITING_MAX: Final = 32
QUESTIONS_OF_ONE_MAX: Final = 8
"""That one organisation, or all operators, have asked and have no answer to: the rest of the places is for others."""
_CONNECT_S: Final = 2
_MEMORY_BYTES_MAX: Final = 1_000_000_000
_THREADS_MAX: Final = 2
"""Both of one question."""
_TOO_MANY: Final = "TOO_MANY_ROWS_OR_BYTES"
_TOO_LONG: Final = ("TIMEOUT_EXCEEDED", "MEMORY_LIMIT_EXCEEDED")

P = ParamSpec("P")
T = TypeVar("T")


class ClickHouseAnalytics:
    """Reads, and nothing else.

    Args:
        url: with user and password; None: there are no analytics here.
        bench: where is asked.
    """

    def __init__(self, url: SecretStr | None, bench: Workbench) -> None:
        self._url = url
        self._bench = bench
        self._client: Client | None = None
        self._asked: Counter[str | None] = Counter()

    async def rows(self, statement: Statement, org_id: str | None) -> Sequence[Mapping[str, object]]:
        """The rows, by the names of their columns; moments with their time zone.

        Args:
            statement: what is asked.
            org_id: for whom; None: for operators.

        Raises:
            AnalyticsUnavailableError: ClickHouse does not answer.
            ThrottledError: too many ask, or this organisation too much.
            InvalidFieldsError: it would take too long.
            ConflictError: this installation has none.
        """
        async with self._place(org_id):
            return await self._bench.do(self._read, statement)

    async def parquet(self, statement: Statement, org_id: str | None, *, rows_max: int) -> bytes | None:
        """The same as a file of that format; None if it has more rows than it may."""
        async with self._place(org_id):
            return await self._bench.do(self._read_parquet, statement, rows_max)

    async def aside(self, org_id: str | None, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What is made of many rows, which would hold up the event loop."""
        async with self._place(org_id):
            return await self._bench.do(work, *args, **kwargs)

    @asynccontextmanager
    async def _place(self, org_id: str | None) -> AsyncIterator[None]:
        if self._asked[org_id] >= QUESTIONS_OF_ONE_MAX:
            raise ThrottledError(RETRY_AFTER_S)
        self._asked[org_id] += 1
        try:
            async with self._bench.place():
                yield
        finally:
            self._asked[org_id] -= 1
            if not self._asked[org_id]:
                del self._asked[org_id]

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()

    def _read(self, statement: Statement) -> Sequence[Mapping[str, object]]:
        try:
            found = self._connected().query(statement.sql, parameters=dict(statement.parameters), tz_mode="aware")
            return list(found.named_results())
        except (ClickHouseError, OSError) as error:
            raise self._refusal(error) from error

    def _read_parquet(self, statement: Statement, rows_max: int) -> bytes | None:
        try:
            return self._connected().raw_query(
                statement.sql,
                parameters=dict(statement.parameters),
                settings={"max_result_rows": rows_max, "result_overflow_mode": "throw"},
                fmt="Parquet",
            )
        except DatabaseError as error:
            if _TOO_MANY in str(error):
                return None
            raise self._refusal(error) from error
        except (ClickHouseError, OSError) as error:
            raise self._refusal(error) from error

    def _connected(self) -> Client:
        if self._url is None:
            raise ConflictError("There are no analytics here: the control plane has no TOLLGATE_CLICKHOUSE_URL.")
        # Two threads may make one each; one of them is kept.
        if self._client is None:
            self._client = clickhouse_connect.get_client(
                dsn=self._url.get_secret_value(),
                autogenerate_session_id=False,
                connect_timeout=_CONNECT_S,
                send_receive_timeout=TIMEOUT_S + _CONNECT_S,
                query_retries=0,
                settings={"readonly": "2", "max_memory_usage": _MEMORY_BYTES_MAX, "max_threads": _THREADS_MAX},
            )
        return self._client

    def _refusal(self, error: Exception) -> Exception:
        if any(name in str(error) for name in _TOO_LONG):
            return InvalidFieldsError(
                InvalidField("?since", "this takes too long to count; ask for a shorter time, or by less")
            )
        return AnalyticsUnavailableError()
