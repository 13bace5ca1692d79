"""Wherever a stream is cut on its way: a client that asked for no usage gets every byte but the chunk that has only that, and all events are counted.

The script is the one that Envoy runs, in the same LuaJIT.
"""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from control_plane.xds.lua import script

HANDLES = b"""
return function(pieces)
  local sent, metadata, headers = {}, {}, { [":status"] = "200", ["content-type"] = "text/event-stream" }
  local told = { request = { endpoint = "chat", model = "m", hide_usage = true } }
  local headers_of = { get = function(_, name) return headers[name] end, remove = function(_, name) headers[name] = nil end }
  local metadata_of = {
    get = function(_, name) return name == "tollgate" and told or nil end,
    set = function(_, _, name, value) metadata[name] = value end,
  }
  local info = { dynamicMetadata = function() return metadata_of end }
  local at = 0
  local function next_chunk()
    at = at + 1
    local s = pieces[at]
    if not s then return nil end
    sent[at] = s
    local place = at
    return {
      length = function() return #s end,
      getBytes = function(_, first, length) return string.sub(s, first + 1, first + length) end,
      setBytes = function(_, text) sent[place] = text return #text end,
    }
  end
  envoy_on_response({
    headers = function() return headers_of end,
    streamInfo = function() return info end,
    bodyChunks = function() return next_chunk end,
  })
  return table.concat(sent), metadata.sse_events, metadata.usage_first
end
"""

USAGE = b'{"prompt_tokens":7,"completion_tokens":3}'
ENDS = (b"\n\n", b"\r\n\r\n")
COMMENT = b": the provider thinks"
WORDS = st.sampled_from([b"word", b'\\"usage\\":', b'\\"choices\\":[]', b"\xc3\xa9", b""])
EVENTS = st.lists(
    WORDS.map(lambda word: b'data: {"choices":[{"delta":{"content":"%b"}}]}' % word) | st.just(COMMENT), max_size=8
)


RUNTIME = LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
RUNTIME.execute(script("front").encode())
ENVOY: Any = RUNTIME.execute(HANDLES)


@given(
    events=EVENTS, end=st.sampled_from(ENDS), cuts=st.lists(st.integers(0, 900), max_size=12), is_ended=st.booleans()
)
def test_a_stream_passes_whole_but_for_its_usage_wherever_it_is_cut(
    events: list[bytes], end: bytes, cuts: list[int], *, is_ended: bool
) -> None:
    shown = b"".join(event + end for event in events)
    hidden = b'data: {"choices":[],"usage":%b}' % USAGE + end
    rest = b"data: [DONE]" + (end if is_ended else b"")
    stream = shown + hidden + rest
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[first:last] for first, last in pairwise(places)]

    sent, counted, usage = ENVOY(RUNTIME.table_from(pieces))

    assert sent == shown + rest
    assert usage == USAGE
    assert counted == sum(event != COMMENT for event in events) + 1 + is_ended
