"""However a client cuts its events: Envoy's script hands on the same bytes, and what it holds until they are whole has bounds.

The scripts are those that Envoy runs, in the same LuaJIT.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from control_plane.xds.lua import script
from tests.support.scripted_websocket import CONTINUATION, PING, TEXT, client_frame

MIB = 1 << 20
EVENT = b'{"type":"input_audio_buffer.append","audio":"%s"}'

WORKER = """
local asking, sessions = require("asking"), require("sessions")
return {
  begin = function(id)
    local session = sessions.begin(id)
    local events = asking.reader(session)
    return {
      read = function(s)
        local whole, before, problem = events.read(s)
        return before .. s:sub(1, whole), problem and problem.code, problem and problem.message
      end,
      ended = function() return session.ended and session.ended.code end,
      session = session,
    }
  end,
  kilobytes = function() collectgarbage() collectgarbage() return collectgarbage("count") end,
}
"""


class Worker:
    """One worker of Envoy, and the sessions of its clients."""

    def __init__(self) -> None:
        lua = LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        preloaded = script("realtime").partition('package.preload["paths"]')[0]
        lua.execute(preloaded.encode())
        self._functions = lua.execute(WORKER.encode())
        self._begun = 0

    def begin(self) -> Any:
        """A session."""
        self._begun += 1
        return self._functions[b"begin"](b"request_%d" % self._begun)

    def mebibytes(self) -> float:
        """What all scripts of the worker keep."""
        return float(self._functions[b"kilobytes"]()) / 1024


def read(session: Any, sent: bytes) -> tuple[bytes, bytes | None]:
    """What of it goes on now, and why the session ends there, if it does."""
    passed, code, _ = session[b"read"](sent)
    return bytes(passed), code


def frames_of(payload: bytes, sizes: list[int]) -> bytes:
    """A message in frames of these sizes and one more, with a ping between any two."""
    frames, at = [], 0
    for size in sizes:
        frames.append(client_frame(payload[at : at + size], TEXT if at == 0 else CONTINUATION, fin=False))
        frames.append(client_frame(b"?", PING))
        at += size
    return b"".join([*frames, client_frame(payload[at:], CONTINUATION if at else TEXT)])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 40), max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(1, 60), max_size=30),
)
def test_events_arrive_as_they_were_however_they_are_cut(messages: list[list[int]], cuts: list[int]) -> None:
    session = Worker().begin()
    sent = b"".join(frames_of(EVENT % (b"A" * 200), sizes) for sizes in messages)
    passed = b""
    left = sent
    for cut in [*cuts, len(sent)]:
        more, code = read(session, left[:cut])
        assert code is None
        passed += more
        left = left[cut:]
    assert passed == sent
    assert session[b"session"][b"heard_bytes"] == 200 * len(messages)


def test_an_event_in_more_than_a_thousand_frames_ends_the_session_and_keeps_nothing() -> None:
    worker = Worker()
    session = worker.begin()
    before = worker.mebibytes()
    assert read(session, client_frame(b"{", TEXT, fin=False)) == (b"", None)
    one = client_frame(b" ", CONTINUATION, fin=False)
    assert read(session, one * 1023) == (b"", None)
    assert read(session, one) == (b"", b"invalid_event")
    assert worker.mebibytes() - before < 0.1


@pytest.mark.parametrize("size", [1, 7, 1448])
def test_an_event_that_never_ends_is_held_once_however_short_its_pieces_are(size: int) -> None:
    worker = Worker()
    session = worker.begin()
    before = worker.mebibytes()
    payload = json.dumps(list(range(200_000))).encode()[: MIB // 2]
    sent = client_frame(payload, TEXT, fin=False)
    for at in range(0, len(sent), size):
        assert read(session, sent[at : at + size]) == (b"", None)
    assert worker.mebibytes() - before < 0.9


def test_an_event_of_more_than_16_mib_ends_the_session() -> None:
    session = Worker().begin()
    begun = b"\x81\xff" + (20 * MIB).to_bytes(8) + b"\0\0\0\0"
    assert read(session, begun + b"a" * (16 * MIB - len(begun))) == (b"", None)
    assert read(session, b"a") == (b"", b"invalid_event")


def test_beyond_64_mib_of_a_worker_the_session_that_holds_the_most_ends_and_the_others_go_on() -> None:
    worker = Worker()
    before = worker.mebibytes()
    begun = b"\x81\xff" + (20 * MIB).to_bytes(8) + b"\0\0\0\0"
    greedy = [worker.begin() for _ in range(5)]
    for number, session in enumerate(greedy[:4]):
        assert read(session, begun + bytes([97 + number]) * (15 * MIB)) == (b"", None)
    modest = worker.begin()
    whole = client_frame(EVENT % (b"A" * 100_000))
    assert read(modest, whole[:50_000]) == (b"", None)
    assert read(greedy[4], begun + b"e" * (9 * MIB)) == (b"", None)
    assert sorted(session[b"ended"]() or b"" for session in greedy) == [b""] * 4 + [b"gateway_error"]
    assert worker.mebibytes() - before < 65
    assert read(modest, whole[50_000:]) == (whole, None)


def test_what_sessions_held_that_are_torn_down_or_ended_is_free_for_others() -> None:
    worker = Worker()
    begun = b"\x81\xff" + (20 * MIB).to_bytes(8) + b"\0\0\0\0"
    for number in range(20):
        # Nobody tells the script that this one is gone.
        read(worker.begin(), begun + bytes([97 + number]) * (15 * MIB))
    ended = worker.begin()
    assert read(ended, b"\x01\xff" + (20 * MIB).to_bytes(8) + b"\0\0\0\0" + b"z" * MIB) == (b"", None)
    alive = worker.begin()
    assert read(alive, begun + b"x" * (14 * MIB)) == (b"", None)
    assert alive[b"ended"]() is None
    assert ended[b"ended"]() is None
