"""From a request to values: body, query, `If-Match`, `Idempotency-Key`. Every fault is reported, each with its pointer."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from control_plane.api import strict_json
from control_plane.api.asked import Asked
from control_plane.circumstances import Circumstances
from control_plane.errors import (
    BodyTooSlowError,
    InvalidField,
    InvalidFieldsError,
    StaleRevisionError,
    UnsupportedMediaTypeError,
    pointer,
)
from control_plane.fault_words import in_our_words

P = ParamSpec("P")
T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

_AT_ONCE_BYTES_MAX: Final = 256 * 1024
"""Above this, reading a body takes long enough that others would notice."""

_KEY_STEP: Final = "[key]"
_NO_JSON: Final = "json_invalid"

_ETAG: Final = re.compile(r'(?:W/)?"([0-9]{1,18})"')
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_PARAM: Final = re.compile(r"[A-Za-z0-9_.@:/-]{1,200}")


class Aside(Protocol):
    """Does something beside the event loop."""

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What it comes to."""


async def read_raw_body(request: web.Request, *, bytes_max: int, within_s: float) -> bytes:
    """The body, as it came, whatever it is.

    Raises:
        BodyTooSlowError: not all of it comes in time.
        web.HTTPRequestEntityTooLarge: there is more of it.
    """
    try:
        async with asyncio.timeout(within_s):
            # A clone, because a request has the application's limit and no other.
            return await request.clone(client_max_size=bytes_max).read()
    except TimeoutError as error:
        raise BodyTooSlowError from error


async def read_body(request: web.Request, *, bytes_max: int, within_s: float) -> bytes:
    """The body, as it came.

    Raises:
        UnsupportedMediaTypeError, BodyTooSlowError, web.HTTPRequestEntityTooLarge: it cannot be what is asked for.
    """
    raw = await read_raw_body(request, bytes_max=bytes_max, within_s=within_s)
    if request.content_type != "application/json":
        raise UnsupportedMediaTypeError("Send the body as application/json.")
    return raw


async def parse_body(raw: bytes, model: type[ModelT], aside: Aside, circumstances: Circumstances) -> ModelT:
    """The body as a value, judged by the circumstances; a large one is parsed aside.

    Raises:
        MalformedBodyError, InvalidFieldsError: see there.
    """
    if len(raw) <= _AT_ONCE_BYTES_MAX:
        return _parse(raw, model, circumstances)
    return await aside(_parse, raw, model, circumstances)


def _parse(raw: bytes, model: type[ModelT], circumstances: Circumstances) -> ModelT:
    unstorable: Sequence[InvalidField] = ()
    try:
        strict_json.parse_object(raw)
    except InvalidFieldsError as error:
        unstorable = error.fields
    try:
        value = model.model_validate_json(raw, strict=True, context=circumstances)
    except ValidationError as error:
        # Half a surrogate pair is no JSON to this reader; it has been found above.
        found = [each for each in _faults(error) if each["type"] != _NO_JSON]
        told = [InvalidField(pointer(_place(each["loc"])), in_our_words(each)) for each in found]
        known = {each.pointer for each in unstorable}
        raise InvalidFieldsError(*unstorable, *(each for each in told if each.pointer not in known)) from error
    if unstorable:
        raise InvalidFieldsError(*unstorable)
    return value


def _faults(error: ValidationError) -> list[ErrorDetails]:
    # Without what they quote: nothing of it is shown, and there may be very many.
    return error.errors(include_url=False, include_context=False, include_input=False)


def _place(steps: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a fault is; one in a key of a mapping is where the key's value would be."""
    return steps[:-1] if steps and steps[-1] == _KEY_STEP else steps


def read_query(request: Asked, model: type[ModelT] | None, *, extra: Sequence[str] = ()) -> ModelT | None:
    """The query as a value; `extra` names parameters that are read elsewhere.

    Raises:
        InvalidFieldsError: a parameter that is unknown, twice there, or not what it must be.
    """
    faults = []
    values = {}
    for name in request.query:
        found = request.query.getall(name)
        if len(found) > 1:
            faults.append(InvalidField(f"?{name}", "given more than once"))
        elif not strict_json.is_storable(name + found[0]):
            faults.append(InvalidField(f"?{name}", "text with characters that cannot be stored"))
        elif name not in extra:
            values[name] = found[0]
    value = None
    if model is None:
        faults += [InvalidField(f"?{name}", "not a parameter of this operation") for name in values]
    else:
        try:
            value = model.model_validate(values)
        except ValidationError as error:
            faults += [
                InvalidField("?" + ".".join(map(str, each["loc"])), in_our_words(each)) for each in _faults(error)
            ]
    if faults:
        raise InvalidFieldsError(*faults)
    return value


def is_dry_run(request: Asked) -> bool:
    """Whether the caller only wants to know what would happen.

    Raises:
        InvalidFieldsError: it says neither yes nor no.
    """
    match request.query.get("dry_run", "false"):
        case "true":
            return True
        case "false":
            return False
        case _:
            raise InvalidFieldsError(InvalidField("?dry_run", "must be true or false"))


def if_match(request: Asked) -> int | None:
    """The revision that `If-Match` names; None for `*`, or without the header.

    Raises:
        StaleRevisionError: it names none of ours, so it is not the current one.
    """
    header = request.headers.get("If-Match", "*").strip()
    if header == "*":
        return None
    match = _ETAG.fullmatch(header)
    if match is None:
        raise StaleRevisionError
    return int(match[1])


def idempotency_key(request: Asked) -> str | None:
    """The `Idempotency-Key`, or None.

    Raises:
        InvalidFieldsError: longer than 200 characters, or not printable ASCII.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidFieldsError(InvalidField("/", "Idempotency-Key must be 1 to 200 printable characters"))
    return key


def is_param(text: str) -> bool:
    """Whether a path parameter could name anything at all."""
    return _PARAM.fullmatch(text) is not None
