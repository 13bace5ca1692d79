-- What the client of a session sends: how much of it a model will read, and how many responses it asks for. Called by realtime.lua.
--
-- An event goes on when it is whole and has been read, so a session that ends does so between two of them, and nothing of what is too much
-- reaches a provider. What two parsers might read in two ways ends the session.

local json, websocket, sessions, holding = require("json"), require("websocket"), require("sessions"), require("holding")

local find, sub, match, max, concat = string.find, string.sub, string.match, math.max, table.concat
local type = type

local EVENT_BYTES_MAX = 16777216  -- a provider takes 15 MiB of sound in one
local FIELDS = { type = true, audio = true }
local APPEND, CLEAR = "input_audio_buffer.append", "input_audio_buffer.clear"
local ITEM, UPDATE, CREATE = "conversation.item.create", "session.update", "response.create"

-- How long the texts are together that stand behind a key anywhere in s. One inside a text has its quotation marks escaped.
local function bytes_of(s, key)
  local sum, word, i = 0, '"' .. key .. '"', 1
  while true do
    local first, last = find(s, word, i, true)
    if not first then return sum end
    i = last + 1
    local _, quote = find(s, '^%s*:%s*"', i)
    if quote then
      local close = json.skip_string(s, quote + 1)
      if not close then return sum end
      sum, i = sum + close - quote - 1, close + 1
    end
  end
end

-- Counts what a model will read of an event.
local function count(session, kind, s, first, last)
  local said = session.said
  if kind == APPEND then
    local bytes = first.audio and max(0, last.audio - first.audio - 1) or 0
    said.audio_bytes, session.heard_bytes = said.audio_bytes + bytes, session.heard_bytes + bytes
  elseif kind == CLEAR then
    said.audio_bytes = said.audio_bytes_kept
  elseif kind == ITEM then
    local audio, image = bytes_of(s, "audio"), bytes_of(s, "image_url")
    said.audio_bytes, said.audio_bytes_kept = said.audio_bytes + audio, said.audio_bytes_kept + audio
    said.image_bytes = said.image_bytes + image
    said.text_bytes = said.text_bytes + #s - audio - image
  elseif kind == UPDATE or kind == CREATE then
    said.text_bytes = said.text_bytes + #s
  end
end

-- The type of an event, if it is one that can be read in one way only, and where its fields stand.
local function kind_of(s)
  local first, last = {}, {}
  local close = json.scan_object(s, 1, FIELDS, first, last)
  if not (close and first.type) or find(s, "%S", close + 1) then return nil end
  return match(sub(s, first.type, last.type), '^"([%w_.]+)"$'), first, last
end

-- A reader of the client's frames. Its `read` returns up to where s may go on, what of before goes in front of that, and why the session ends
-- there, if it does.
local function reader(session)
  local held, pieces = holding.place(session), {}
  local text, from, before

  local payloads = websocket.reader(true, function(s, first, last)
    pieces[#pieces + 1] = sub(s, first, last)
  end, function() end)

  -- The payload of the message that ends there: its frames are kept as they came, and only once.
  local function payload(last)
    local frames = sub(text, from, last)
    if from == 1 then
      before = holding.take(held)
      frames = before .. frames
    end
    from, pieces = last + 1, {}
    payloads.read(frames)
    local s = concat(pieces)
    pieces = {}
    return s
  end

  local function on_message(at)
    local s = payload(at)
    local kind, first, last = kind_of(s)
    if not kind then return sessions.UNCLEAR end
    if kind == CREATE then
      if not sessions.covers(session, session.asked + session.open + 1) then return sessions.CROWDED end
      session.asked = session.asked + 1
    end
    count(session, kind, s, first, last)
  end

  local frames = websocket.reader(true, nil, on_message)

  local function read(s)
    text, from, before = s, 1, ""
    local whole, problem = frames.read(s)
    text = nil
    if whole > 0 and from == 1 then before = holding.take(held) end
    local rest = #s - whole
    if not problem and rest > 0 then
      if held.bytes + rest > EVENT_BYTES_MAX then
        problem = sessions.UNCLEAR
      else
        holding.hold(held, sub(s, whole + 1))
        problem = session.ended
      end
    end
    -- What is wrong with a frame is a word.
    if type(problem) == "string" then problem = sessions.UNCLEAR end
    if problem then holding.take(held) end
    -- What of the event was held that ends the session goes nowhere.
    return whole, whole > 0 and before or "", problem
  end

  return { read = read }
end

return { reader = reader }
