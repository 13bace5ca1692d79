-- What the client of a session sends: how much of it a model will read, and how many responses it asks for. Called by realtime.lua.
--
-- An event goes on when it is whole and has been read, so a session that ends does so between two of them, and nothing of what is too much
-- reaches a provider. What two parsers might read in two ways ends the session.

local json, websocket, sessions = require("json"), require("websocket"), require("sessions")

local find, sub, match, max, concat, remove = string.find, string.sub, string.match, math.max, table.concat, table.remove
local type = type

local EVENT_BYTES_MAX = 16777216  -- a provider takes 15 MiB of sound in one
local ANSWER_MS = 10000           -- a wish that no response has begun for by then was refused
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

-- How many responses have been asked for that have not begun.
local function pending(session, now)
  local asked_at = session.asked_at
  while asked_at[1] and asked_at[1] < now - ANSWER_MS do remove(asked_at, 1) end
  return #asked_at
end

-- The type of an event, if it is one that can be read in one way only, and where its fields stand.
local function kind_of(s)
  local first, last = {}, {}
  local close = json.scan_object(s, 1, FIELDS, first, last)
  if not (close and first.type) or find(s, "%S", close + 1) then return nil end
  return match(sub(s, first.type, last.type), '^"([%w_.]+)"$'), first, last
end

-- A reader of the client's frames; `now` says the time. Its `read` returns up to where s may go on, what of before goes in front of that, and
-- why the session ends there, if it does.
local function reader(session, now)
  local pieces, held, held_bytes = {}, {}, 0

  local function on_piece(s, first, last)
    pieces[#pieces + 1] = sub(s, first, last)
  end

  local function on_message()
    local s = concat(pieces)
    pieces = {}
    local kind, first, last = kind_of(s)
    if not kind then return sessions.UNCLEAR end
    if kind == CREATE then
      local at = now()
      if not sessions.covers(session, pending(session, at) + session.open + 1) then return sessions.CROWDED end
      session.asked_at[#session.asked_at + 1] = at
    end
    count(session, kind, s, first, last)
  end

  local frames = websocket.reader(true, on_piece, on_message)

  local function read(s)
    local whole, problem = frames.read(s)
    local before = ""
    if whole > 0 then before, held, held_bytes = concat(held), {}, 0 end
    if not problem and whole < #s then
      held[#held + 1] = sub(s, whole + 1)
      held_bytes = held_bytes + #s - whole
      if held_bytes > EVENT_BYTES_MAX then problem = sessions.UNCLEAR end
    end
    -- What is wrong with a frame is a word.
    if type(problem) == "string" then problem = sessions.UNCLEAR end
    return whole, before, problem
  end

  return { read = read }
end

return { reader = reader }
