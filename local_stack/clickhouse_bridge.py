"""A ClickHouse server for one machine: the HTTP interface, as far as client libraries use it, over the engine in-process.

What it leaves out on purpose: sessions (every statement starts fresh), external tables, compressed and streamed answers,
users beyond the one. Every statement ClickHouse understands goes to the real engine unread, INSERT with data excepted.
"""

import argparse
import asyncio
import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import lz4.frame
from aiohttp import web

from local_stack.clickhouse_engine import Answer, Engine, QueryError, Statement

BODY_BYTES_MAX = 64 * 1024 * 1024
"""Of a request, before and after decompression."""

STATEMENTS_RUNNING_MAX = 4
STATEMENTS_WAITING_MAX = 100
"""More than this are refused, as ClickHouse refuses what exceeds max_concurrent_queries."""

_HTTP_PARAMETERS = frozenset({
    *("buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress", "default_format"),
    *("enable_http_compression", "query", "query_id", "quota_key", "role", "session_check", "session_id"),
    *("session_timeout", "stacktrace", "wait_end_of_query"),
})  # fmt: skip
"""Query parameters that speak to the HTTP interface. Any other is a setting or, with the prefix `param_`, a value."""

_PARAMETER_PREFIX = "param_"
_DEFAULT_FORMAT = "TabSeparated"

_SPACE = rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_NAME = rb"(?:`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|\w++)"
_INSERT_WITH_DATA = re.compile(
    rb"(?P<statement>%(space)sINSERT\s+INTO\s+(?:TABLE\s+)?%(name)s(?:\s*\.\s*%(name)s)?"
    rb"(?:\s*\((?:\s|,|%(name)s)*\))?)\s*FORMAT\s+(?!VALUES\b)(?P<format>\w+)[ \t]*(?:\r?\n|;|$)"
    % {b"space": _SPACE, b"name": _NAME},
    re.IGNORECASE | re.DOTALL,
)
"""An INSERT up to its data, found or not found in one pass: a name is never taken for two. What does not look exactly like this is left to ClickHouse's own parser, data and all."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one user."""

    user: str
    password: str

    def check(self, headers: Mapping[str, str]) -> None:
        """Compare user and password of a request, in constant time for both.

        Raises:
            QueryError: one of them is wrong.
        """
        user, password = _basic_auth(headers) or (
            headers.get("X-ClickHouse-User", ""),
            headers.get("X-ClickHouse-Key", ""),
        )
        right_user = hmac.compare_digest(user.encode(), self.user.encode())
        right_password = hmac.compare_digest(password.encode(), self.password.encode())
        if not (right_user and right_password):
            raise QueryError("Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)")


class Bridge:
    """The HTTP interface of one engine."""

    def __init__(self, engine: Engine, credentials: Credentials, database: str) -> None:
        self._engine = engine
        self._credentials = credentials
        self._database = database
        self._threads = ThreadPoolExecutor(STATEMENTS_RUNNING_MAX, thread_name_prefix="clickhouse")
        self._accepted = 0

    def app(self) -> web.Application:
        """The application; closing it closes the engine."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/ping", self._ping)
        # The database as a path is not ClickHouse's interface, it is how a DSN names it: so the recorded one can be pasted.
        for path in ("/", f"/{self._database}", f"/{self._database}/"):
            app.router.add_get(path, self._query)
            app.router.add_post(path, self._query)
        app.on_cleanup.append(self._close)
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _query(self, request: web.Request) -> web.Response:
        try:
            self._credentials.check(request.headers)
            statement = await _statement(request, self._database)
            return _render(statement, await self._run(statement), query_id=request.query.get("query_id", ""))
        except QueryError as error:
            return self._render_error(error)

    async def _run(self, statement: Statement) -> Answer:
        if self._accepted >= STATEMENTS_RUNNING_MAX + STATEMENTS_WAITING_MAX:
            raise QueryError("Code: 202. DB::Exception: Too many queries wait. (TOO_MANY_SIMULTANEOUS_QUERIES)")
        self._accepted += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.run, statement)
        finally:
            self._accepted -= 1

    def _render_error(self, error: QueryError) -> web.Response:
        return web.Response(
            status=_STATUS_BY_CODE.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR),
            text=f"{error} (version {self._engine.version})\n",
            headers={"X-ClickHouse-Exception-Code": str(error.code)},
        )

    async def _close(self, _app: web.Application) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._engine.close()


_STATUS_BY_CODE: Mapping[int, HTTPStatus] = {
    60: HTTPStatus.NOT_FOUND,  # unknown table
    62: HTTPStatus.BAD_REQUEST,  # syntax
    81: HTTPStatus.NOT_FOUND,  # unknown database
    516: HTTPStatus.FORBIDDEN,
}


async def _statement(request: web.Request, database: str) -> Statement:
    """Read a request as the HTTP interface documents it.

    The statement is the parameter `query`, followed by the body; in a multipart form it is a field. Any other body is SQL
    whatever its type: `curl -d` says application/x-www-form-urlencoded of everything. Values of parameters come in
    ClickHouse's escaped form and stay in it.
    """
    fields = dict(request.query)
    body = b""
    if request.content_type == "multipart/form-data":
        for name, value in (await request.post()).items():
            if not isinstance(value, str):
                raise QueryError("Code: 48. DB::Exception: No external tables here. (NOT_IMPLEMENTED)")
            fields[name] = value
    else:
        body = _decompressed(await request.read(), request.headers.get("Content-Encoding"))
    sql, rows, rows_format = _split(fields.get("query", "").encode(), body)
    return Statement(
        sql=sql,
        database=fields.get("database") or request.headers.get("X-ClickHouse-Database") or database,
        format=rows_format
        or fields.get("default_format")
        or request.headers.get("X-ClickHouse-Format")
        or _DEFAULT_FORMAT,
        rows=rows,
        settings={
            name: value
            for name, value in fields.items()
            if name not in _HTTP_PARAMETERS and not name.startswith(_PARAMETER_PREFIX)
        },
        parameters={
            name.removeprefix(_PARAMETER_PREFIX): value
            for name, value in fields.items()
            if name.startswith(_PARAMETER_PREFIX)
        },
        read_only=request.method == "GET",
    )


def _split(query: bytes, body: bytes) -> tuple[str, bytes | None, str | None]:
    """The statement, the rows that follow it and the format they are in, the last two None without such rows."""
    text = query + b"\n" + body if query and body else query or body
    insert = _INSERT_WITH_DATA.match(text)
    try:
        if insert is None:
            return text.decode(), None, None
        return insert["statement"].decode(), text[insert.end() :], insert["format"].decode()
    except UnicodeDecodeError:
        raise QueryError("Code: 62. DB::Exception: The statement is not UTF-8. (SYNTAX_ERROR)") from None


def _decompressed(body: bytes, encoding: str | None) -> bytes:
    # gzip, deflate and zstd were undone by aiohttp, which counts what comes out against the limit as well.
    if encoding != "lz4":
        return body
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        data: bytes = decompressor.decompress(body, BODY_BYTES_MAX)
    except RuntimeError as error:
        raise QueryError(f"Code: 354. DB::Exception: {error}. (CANNOT_DECOMPRESS)") from None
    if not decompressor.eof:
        raise QueryError("Code: 354. DB::Exception: The body is cut short or too large. (CANNOT_DECOMPRESS)")
    return data


def _basic_auth(headers: Mapping[str, str]) -> tuple[str, str] | None:
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


def _render(statement: Statement, answer: Answer, *, query_id: str) -> web.Response:
    summary = {"read_rows": str(answer.rows_read), "written_rows": str(answer.rows_written)}
    return web.Response(
        body=answer.body,
        content_type="application/octet-stream",
        headers={
            "X-ClickHouse-Format": statement.format,
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Summary": json.dumps(summary),
            "X-ClickHouse-Timezone": "UTC",
        },
    )


def main() -> None:
    """Serve one data directory until SIGTERM."""
    parser = argparse.ArgumentParser(prog="clickhouse_bridge", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    credentials = Credentials(options.user, options.password_file.read_text(encoding="utf-8"))
    bridge = Bridge(Engine(options.data_dir, options.database), credentials, options.database)
    web.run_app(bridge.app(), host="127.0.0.1", port=options.port, print=None, access_log=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
