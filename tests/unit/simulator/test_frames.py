import json

from simulator.frames import SLOT, Template, compact, sse


def test_event_has_a_name_only_where_the_dialect_names_events() -> None:
    assert sse({"a": 1}) == b'data: {"a":1}\n\n'
    assert sse({"a": 1}, event="ping") == b'event: ping\ndata: {"a":1}\n\n'
    assert sse({"a": 1}, end="\r\n") == b'data: {"a":1}\r\n\r\n'


def test_template_fills_the_last_slot_with_escaped_text() -> None:
    template = Template(compact({"model": SLOT, "text": SLOT, "end": None}).encode())

    assert json.loads(template.fill('a "b"\n')) == {"model": SLOT, "text": 'a "b"\n', "end": None}
