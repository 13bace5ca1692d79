"""The ClickHouse engine inside this process (chdb). One per process and per directory; blocking, safe to call from threads.

Every statement gets a connection of its own. One costs 0.07 ms, and settings, the database in use and temporary tables
of one request cannot reach the next.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

_CODE = re.compile(r"Code: ([0-9]+)\. ")
_UNKNOWN_ERROR_CODE = 1000
_HERE = "."


class QueryError(Exception):
    """ClickHouse refused a statement; `code` is ClickHouse's own number for the reason."""

    def __init__(self, text: str) -> None:
        match = _CODE.search(text)
        self.code = int(match[1]) if match else _UNKNOWN_ERROR_CODE
        super().__init__(text[match.start() :] if match else text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as a client sent it."""

    sql: str
    database: str
    format: str
    """Of the answer, unless the statement names one; of `rows`, if there are any."""
    rows: bytes | None = None
    """The data of an INSERT whose format is not text; the statement then ends before its FORMAT."""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave."""

    body: bytes
    rows_read: int = 0
    rows_written: int = 0


class Engine:
    """A data directory, opened and made the working directory. The kernel of the thing is shared; connections are cheap."""

    def __init__(self, directory: Path, database: str) -> None:
        # Not handed over as a path, because chdb reads a URL: behind a question mark it finds options.
        os.chdir(directory)
        self._held_open = chdb.connect(_HERE)
        self._held_open.query(f"CREATE DATABASE IF NOT EXISTS {_identifier(database)}")
        self.version = self._held_open.query("SELECT version()", "TSV").bytes().decode().strip()

    def run(self, statement: Statement) -> Answer:
        """Execute one statement.

        Raises:
            QueryError: ClickHouse refused it.
        """
        connection = chdb.connect(_HERE)
        try:
            connection.query(f"USE {_identifier(statement.database)}")
            for name, value in statement.settings.items():
                connection.query(f"SET {_identifier(name)} = {_literal(value)}")
            if statement.read_only:
                connection.query("SET readonly = 2")
            return _execute(connection, statement)
        except RuntimeError as error:
            raise QueryError(str(error)) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Flush and close the directory."""
        self._held_open.close()


def _execute(connection: Any, statement: Statement) -> Answer:
    if statement.rows is None:
        result = connection.query(statement.sql, statement.format, params=dict(statement.parameters))
        return Answer(bytes(result.bytes() or b""), result.rows_read(), result.rows_written())
    with connection.send_insert(statement.sql, statement.format) as insert:
        if statement.rows:
            insert.append(statement.rows)
        return Answer(b"", rows_written=insert.finish().rows_written)


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
