"""The lines of a batch's input as values: read by the scripts of Envoy's front filter, so that a body means here what it means there.

LuaJIT runs them in this process, as it does in Envoy.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupa.luajit21 import LuaRuntime

from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import INVALID_INPUT, INVALID_JSON, ApiError
from gateway_core.ids import ModelName
from gateway_core.usage import Meter

_SCRIPTS: Final = Path(__file__).parents[2] / "envoy" / "lua"
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f]")
CUSTOM_ID_LENGTH_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a batch; an `Extent` like any other. Its body is JSON without files, and no reranking.

    Attributes:
        custom_id: the client's name for it.
        meters: those that the provider will count, whatever the model makes of it.
        rewritten: the line as it is sent to a provider that calls the model so.
    """

    custom_id: str
    model: ModelName
    body_bytes: int
    has_references: bool
    max_output_tokens: int | None
    choices: int
    units: int
    may_search: bool
    meters: frozenset[Meter]
    rewritten: Callable[[str], bytes]
    files: int = 0
    file_bytes: int = 0
    query_bytes: int = 0


class InvalidBatchLineError(ValueError):
    """A line that is not accepted. The error says why, and quotes nothing but the names of models and fields."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.code)
        self.error = error


class LineReader:
    """Reads lines for one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint.encode()
        self._url = json.dumps(FACTS[endpoint].path).encode()
        lua = LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False)
        lua.execute(b"package.path = ...", str(_SCRIPTS / "?.lua").encode())
        self._members, self._read = lua.execute((_SCRIPTS / "batch_lines.lua").read_bytes())

    def read(self, line: bytes) -> BatchLine:
        """Read one line.

        Raises:
            InvalidBatchLineError: it is not a line for this endpoint, or what it asks for is not offered.
        """
        # A carriage return is white space to JSON and the end of a line to some who read files of lines.
        if _CONTROLS.search(line.rstrip(b"\r")):
            raise _invalid(INVALID_JSON.code, b"There is a control character in the line.")
        members = self._members(line)
        if isinstance(members, tuple):
            raise _invalid(INVALID_JSON.code, members[1])
        custom_id = _custom_id(members[b"custom_id"])
        if members[b"method"] != b'"POST"' or members[b"url"] != self._url:
            raise _invalid(INVALID_INPUT.code, b"The method is POST, and the URL that of the batch's endpoint.", b"url")
        body = members[b"body"]
        known, rest = self._read(self._endpoint, body)
        if known is None:
            raise _invalid(rest[1], rest[2], rest[3])
        head = b'{"custom_id":%s,"method":"POST","url":%s,"body":' % (json.dumps(custom_id).encode(), self._url)
        return BatchLine(
            custom_id,
            ModelName(known[b"model"].decode()),
            len(body),
            bool(known[b"references"]),
            _number(known[b"max_output_tokens"]),
            _number(known[b"choices"]) or 1,
            _number(known[b"units"]) or 0,
            bool(known[b"web_search"]),
            frozenset(Meter(name) for name in (known[b"meters"] or b"").decode().split(",") if name),
            lambda upstream_model: b"%s%s}\n" % (head, rest(upstream_model.encode())),
        )


def _number(value: object) -> int | None:
    """Lua has one kind of number."""
    return int(value) if isinstance(value, int | float) else None


def _custom_id(text: bytes) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    # A NUL and half of a pair have no place in Postgres.
    if (
        not isinstance(found, str)
        or not 1 <= len(found) <= CUSTOM_ID_LENGTH_MAX
        or "\x00" in found
        or not found.isprintable()
    ):
        message = f"This is a text of 1 to {CUSTOM_ID_LENGTH_MAX} printable characters."
        raise _invalid(INVALID_INPUT.code, message.encode(), b"custom_id")
    return found


def _invalid(code: str | bytes, message: bytes, param: bytes | None = None) -> InvalidBatchLineError:
    code = code if isinstance(code, str) else code.decode()
    return InvalidBatchLineError(ApiError(400, code, message.decode(), param=None if param is None else param.decode()))
