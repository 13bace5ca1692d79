import base64

import lz4.frame
import pytest

from local_stack.clickhouse_bridge import BODY_BYTES_MAX, Credentials, _decompressed, _split
from local_stack.clickhouse_engine import QueryError

CREDENTIALS = Credentials("tollgate", "secret")


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [basic("tollgate", "secret"), {"X-ClickHouse-User": "tollgate", "X-ClickHouse-Key": "secret"}],
)
def test_the_user_is_admitted(headers: dict[str, str]) -> None:
    CREDENTIALS.check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("tollgate", "wrong"),
        basic("default", "secret"),
        {"Authorization": "Basic !"},
        {"Authorization": "Bearer secret"},
        {"X-ClickHouse-User": "tollgate"},
    ],
)
def test_anybody_else_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(QueryError) as refused:
        CREDENTIALS.check(headers)
    assert refused.value.code == 516


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        (b"SELECT 1", b"", ("SELECT 1", None, None)),
        (b"", b"SELECT 1", ("SELECT 1", None, None)),
        (b"INSERT INTO t (`a b`, c) FORMAT Native", b"\x00\xff", ("INSERT INTO t (`a b`, c)", b"\x00\xff", "Native")),
        (b"", b"INSERT INTO `d`.`t` FORMAT Native\n\xff\n", ("INSERT INTO `d`.`t`", b"\xff\n", "Native")),
        (b"", b"-- why\ninsert into t format JSONEachRow\n{}", ("-- why\ninsert into t", b"{}", "JSONEachRow")),
        (b"", b"INSERT INTO t FORMAT Values (1)", ("INSERT INTO t FORMAT Values (1)", None, None)),
        (b"", b"INSERT INTO t VALUES ('x FORMAT y\n')", ("INSERT INTO t VALUES ('x FORMAT y\n')", None, None)),
        (b"", b"INSERT INTO t SELECT 1 FORMAT TSV", ("INSERT INTO t SELECT 1 FORMAT TSV", None, None)),
    ],
)
def test_a_statement_ends_where_its_rows_begin(
    query: bytes, body: bytes, expected: tuple[str, bytes | None, str | None]
) -> None:
    assert _split(query, body) == expected


def test_a_statement_that_is_not_text_is_refused() -> None:
    with pytest.raises(QueryError, match="not UTF-8"):
        _split(b"", b"SELECT '\xff'")


def test_a_compressed_body_may_not_grow_without_bound() -> None:
    bomb = lz4.frame.compress(b"\0" * (BODY_BYTES_MAX + 1))
    with pytest.raises(QueryError, match="too large"):
        _decompressed(bomb, "lz4")


def test_a_damaged_body_is_refused() -> None:
    with pytest.raises(QueryError):
        _decompressed(b"not lz4", "lz4")
