"""JSON as strictly as the standard allows: one meaning for every reader, or none. Pure.

What is refused is what two readers could take differently (duplicate keys, NaN, numbers beyond 64 bits) or what Postgres
cannot keep (NUL, halves of surrogate pairs).
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Final

from control_plane.errors import InvalidField, InvalidFieldsError, MalformedBodyError, pointer

DEPTH_MAX: Final = 32
_UNSTORABLE: Final = re.compile("[\\0\\ud800-\\udfff]")
_INTEGER_MAX: Final = 2**63 - 1
_DIGITS_MAX: Final = 40
_DECIMAL_CHARACTERS_MAX: Final = 100


def parse_object(body: bytes) -> dict[str, object]:
    """The JSON object in a body; numbers with a point or an exponent are `Decimal`, exactly as they are written.

    Raises:
        MalformedBodyError: not UTF-8, not JSON, not an object, too deep, a key twice, or a number nobody can hold.
        InvalidFieldsError: text with a NUL or half a surrogate pair in it, each with its pointer.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBodyError("The body is not UTF-8.") from error
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_decimal, parse_constant=_constant
        )
    except RecursionError as error:
        raise MalformedBodyError(f"The body is nested deeper than {DEPTH_MAX} levels.") from error
    except ValueError as error:
        raise MalformedBodyError("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise MalformedBodyError("The body is not a JSON object.")
    if unstorable := [
        InvalidField(pointer, "text with characters that cannot be stored") for pointer in _bad(value, [])
    ]:
        raise InvalidFieldsError(*unstorable)
    return value


def is_storable(text: str) -> bool:
    """Whether Postgres can keep a text: no NUL, no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def _bad(container: dict[str, object] | list[object], path: list[str | int]) -> Iterator[str]:
    """Pointers to what cannot be stored. Of the path only the last step is written anew: large bodies have many elements."""
    if container and len(path) >= DEPTH_MAX:
        raise MalformedBodyError(f"The body is nested deeper than {DEPTH_MAX} levels.")
    steps: Iterable[tuple[str | int, object]]
    steps = container.items() if isinstance(container, dict) else enumerate(container)
    for step, value in steps:
        if isinstance(step, str) and not is_storable(step):
            yield pointer(path)
        elif isinstance(value, str):
            if not is_storable(value):
                yield pointer([*path, step])
        elif isinstance(value, dict | list):
            path.append(step)
            yield from _bad(value, path)
            path.pop()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedBodyError("The body has an object with the same key twice.")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX or abs(number := int(digits)) > _INTEGER_MAX:
        raise MalformedBodyError("The body has a number that is too large.")
    return number


def _decimal(digits: str) -> Decimal:
    if len(digits) > _DECIMAL_CHARACTERS_MAX:
        raise MalformedBodyError("The body has a number that nobody has use for.")
    try:
        number = Decimal(digits)
    except InvalidOperation as error:
        raise MalformedBodyError("The body has a number that is too large.") from error
    if not math.isfinite(float(number)):
        raise MalformedBodyError("The body has a number that is too large.")
    return number


def _constant(_name: str) -> float:
    raise MalformedBodyError("The body has a number that JSON does not know.")
