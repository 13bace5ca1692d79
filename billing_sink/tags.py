"""What a client has its costs told apart by: names and values, out of what it sent. Pure.

Whatever it sent, it decides about no charge: what is no tag is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

TAGS_MAX: Final = 16
"""As OpenAI has it, and the next one."""
VALUE_CHARACTERS_MAX: Final = 512
USER: Final = "user"

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def tags_of(tags: str | None, user: str | None) -> Mapping[str, str]:
    """The tags of a request.

    Args:
        tags: `name=value` with commas between, or an object of strings as JSON; see `RequestField.TAGS`.
        user: a string as JSON; the tag `user`, unless the tags have one.

    Returns:
        At most `TAGS_MAX`; names of letters, digits, `_`, `.` and `-`, values of at most `VALUE_CHARACTERS_MAX` characters, none of them empty.
    """
    found: dict[str, str] = {}
    for name, value in _given(tags or "", user):
        text = _storable(value.strip())[:VALUE_CHARACTERS_MAX]
        if text and _NAME.fullmatch(name) and len(found) < TAGS_MAX:
            found.setdefault(name, text)
    return found


def _given(tags: str, user: str | None) -> Iterator[tuple[str, str]]:
    if tags.startswith("{"):
        given = _parsed(tags)
        pairs = given.items() if isinstance(given, dict) else ()
        yield from ((name, value) for name, value in pairs if isinstance(value, str))
    else:
        for pair in tags.split(","):
            name, _, value = pair.partition("=")
            yield name.strip(), value
    named = _parsed(user) if user else None
    if isinstance(named, str):
        yield USER, named


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _storable(text: str) -> str:
    """Without what Postgres cannot keep: NUL, and half of a surrogate pair."""
    return text.replace("\x00", "").encode(errors="replace").decode()
