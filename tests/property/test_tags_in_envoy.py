"""Whatever clients write as their tags: what reaches the spool is plain text, and says the same.

The script is the one that Envoy runs, in the same LuaJIT.
"""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from billing_sink.tags import tags_of

TAGS = Path(__file__).parents[2] / "envoy" / "lua" / "tags.lua"
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(str.strip).filter(bool)

lua = LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
take_fields = lua.execute(TAGS.read_bytes())[b"take_fields"]


def taken(metadata: bytes, user: bytes) -> dict[bytes, bytes]:
    known = lua.table()
    body = metadata + user
    first = lua.table_from({b"metadata": 1, b"user": len(metadata) + 1})
    last = lua.table_from({b"metadata": len(metadata), b"user": len(body)})
    take_fields(known, body, first, last)
    return dict(known.items())


@given(
    tags=st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True), VALUES, max_size=16),
    user=VALUES,
    ascii_only=st.booleans(),
)
def test_tags_arrive_as_they_were_written_in_whatever_script(tags: dict[str, str], user: str, ascii_only: bool) -> None:
    written = [json.dumps(each, ensure_ascii=ascii_only).encode() for each in (tags, user)]
    found = taken(*written)
    assert all(text.isascii() for text in found.values())
    assert tags_of(found[b"tags"].decode(), found[b"user"].decode()) == (
        {"user": user, **tags} if len(tags) < 16 or "user" in tags else tags
    )


@given(st.binary(max_size=60))
def test_what_is_no_utf_8_becomes_plain_text_too(text: bytes) -> None:
    found = taken(b'{"a":"' + text + b'"}', b'"' + text + b'"')
    assert all(each.isascii() and each.decode().isprintable() for each in found.values())


def test_what_is_no_object_no_string_or_too_long_is_left_out() -> None:
    assert taken(b"[1]", b"7") == {}
    assert taken(b'{"a":"' + b"x" * 5000 + b'"}', b'"' + b"x" * 300 + b'"') == {}
