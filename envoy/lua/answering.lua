-- What the provider of a session sends: every event is told by its type, and the usage of those that have one is added up as `usage_first`. What
-- has come of what has no usage yet is `unfinished`. Called by realtime.lua.
--
-- Read strictly and in bounded memory. What cannot be read ends the session: nobody could count what follows.

local json, websocket, sums, sessions = require("json"), require("websocket"), require("sums"), require("sessions")

local find, sub, match, format = string.find, string.sub, string.match, string.format
local concat, max, min, ceil, pcall, tostring = table.concat, math.max, math.min, math.ceil, pcall, tostring

local EVENT_BYTES_MAX = 1048576   -- of an event that has to be read whole
local KIND_BYTES = 160            -- in which an event says what it is, if that stands in front
local DONE, CREATED = "response.done", "response.created"
local HEARD = "conversation.item.input_audio_transcription."
local HEARD_DELTA, HEARD_WHOLE, HEARD_NOTHING = HEARD .. "delta", HEARD .. "completed", HEARD .. "failed"
local BEGUN, UPDATED = "session.created", "session.updated"
local ERROR, ALREADY_ACTIVE = "error", '"conversation_already_has_active_response"'
local SPEECH_STARTED, COMMITTED = "input_audio_buffer.speech_started", "input_audio_buffer.committed"
local READ = { [DONE] = true, [HEARD_WHOLE] = true, [BEGUN] = true, [UPDATED] = true, [ERROR] = true }
local EVENT_FIELDS, RESPONSE_FIELDS = { type = true, response = true, usage = true }, { usage = true }
local ERROR_FIELDS, CODE_FIELDS = { error = true }, { code = true }
-- Where a session's sound is of telephones, a sixth as many bytes a second as elsewhere.
local TELEPHONE = { '"g711_ulaw"', '"g711_alaw"', '"audio/pcmu"', '"audio/pcma"' }

local function number(object, name)
  return object and object[name] or 0
end

-- All tokens that responses have read and written.
local function tokens_of(usage)
  return max(number(usage, "total_tokens"), number(usage, "input_tokens") + number(usage, "output_tokens"))
end

-- Whether an event says that a response which was asked for will not begin. Its word for that alone, since other errors a client can cause as it likes.
local function is_refusal(s)
  local first, inner_first, inner_last = {}, {}, {}
  return json.scan_object(s, 1, ERROR_FIELDS, first, {}) and first.error
    and json.scan_object(s, first.error, CODE_FIELDS, inner_first, inner_last) and inner_first.code
    and sub(s, inner_first.code, inner_last.code) == ALREADY_ACTIVE
end

-- What the session has cost so far, in nano-USD, by rates that are no lower than those it will be charged by.
local function spent(usage, heard, rates)
  local input, output = number(usage, "input_tokens"), number(usage, "output_tokens")
  local cached = min(input, number(usage and usage.input_token_details, "cached_tokens"))
  output = max(output, number(usage, "total_tokens") - input)
  local units = (input - cached + number(heard, "input_tokens")) * rates.input + cached * rates.cached_input
    + (output + number(heard, "output_tokens")) * rates.output
    + ceil(max(number(heard, "seconds"), number(heard, "duration"))) * rates.audio_second
  return units / 1e6
end

-- The events of a session, as far as they count. `say` writes into the metadata.
local function counting(session, say)
  local usage, heard = nil, nil
  local responses, transcriptions, context = 0, 0, 0
  local pieces, audio_bytes, heard_pieces, is_telephone, is_told = 0, 0, 0, false, false

  -- Tells of what has begun and has no usage yet, and of what was read for it; or once that there is nothing any more.
  local function tell_unfinished()
    if session.open + pieces + audio_bytes + heard_pieces == 0 then
      if is_told then say("unfinished", "{}") end
      is_told = false
      return
    end
    local said = session.said
    is_told = true
    say("unfinished", format(
      '{"responses":%d,"pieces":%d,"audio_bytes":%d,"context_tokens":%d,"text_bytes_sent":%d,"image_bytes_sent":%d,'
        .. '"audio_bytes_sent":%d,"transcription_pieces":%d,"audio_bytes_heard":%d,"is_telephone":%s}',
      session.open, pieces, audio_bytes, context, said.text_bytes, said.image_bytes, said.audio_bytes,
      heard_pieces, session.heard_bytes, tostring(is_telephone)))
  end

  local function tell()
    local parts = { '"responses":' .. responses, '"transcriptions":' .. transcriptions }
    if usage then parts[#parts + 1] = '"usage":' .. sums.text(usage) end
    if heard then parts[#parts + 1] = '"transcribed":' .. sums.text(heard) end
    say("usage_first", "{" .. concat(parts, ",") .. "}")
    session.spent = spent(usage, heard, session.rates)
    session.used = tokens_of(usage) + tokens_of(heard)
  end

  -- One response less is waited for that has not begun.
  local function answered()
    session.asked = max(0, session.asked - 1)
  end

  -- An event began whose type is known: what counts of it beside its usage.
  local function begun(kind)
    if kind == CREATED then
      session.begun, session.open = session.begun + 1, session.open + 1
      answered()
    elseif kind == HEARD_DELTA then
      heard_pieces = heard_pieces + 1
    elseif find(kind, "^response%..*%.delta$") and not find(kind, "audio.delta", 1, true) then
      pieces = pieces + 1
    elseif kind == HEARD_NOTHING then
      heard_pieces, session.heard_bytes = 0, 0
    elseif kind == COMMITTED then
      session.said.audio_bytes_kept = session.said.audio_bytes
    elseif kind == SPEECH_STARTED then
      -- What was silence is not read.
      session.said.audio_bytes = session.said.audio_bytes_kept
      return
    else
      return
    end
    tell_unfinished()
  end

  -- So many bytes of sound have come.
  local function sounded(bytes)
    audio_bytes = audio_bytes + bytes
    tell_unfinished()
  end

  -- Takes in a whole event. Returns whether it could be read.
  local function ended(kind, s)
    if kind == BEGUN or kind == UPDATED then
      is_telephone = false
      for i = 1, #TELEPHONE do is_telephone = is_telephone or find(s, TELEPHONE[i], 1, true) ~= nil end
      return true
    end
    if kind == ERROR then
      if is_refusal(s) then answered() end
      return true
    end
    local first, last = {}, {}
    if not json.scan_object(s, 1, EVENT_FIELDS, first, last) then return false end
    local at = first.usage
    if kind == DONE then
      -- One that comes in one piece has not begun before.
      if session.open == 0 then answered() end
      responses, session.open = responses + 1, max(0, session.open - 1)
      if session.open == 0 then
        pieces, audio_bytes, session.said = 0, 0, sessions.nothing_said()
      end
      local inner = {}
      if not first.response or not json.scan_object(s, first.response, RESPONSE_FIELDS, inner, {}) then return false end
      at = inner.usage
      -- Null where a response has failed before the model was asked.
      if at and sub(s, at, at) == "{" then
        local before = tokens_of(usage)
        usage = usage or {}
        if not sums.add(usage, s, at) then return false end
        context = tokens_of(usage) - before
      end
    else
      transcriptions, heard_pieces, session.heard_bytes = transcriptions + 1, 0, 0
      if at and sub(s, at, at) == "{" then
        heard = heard or {}
        if not sums.add(heard, s, at) then return false end
      end
    end
    tell()
    tell_unfinished()
    return true
  end

  return { begun = begun, sounded = sounded, ended = ended }
end

-- A reader of the provider's frames. Its `read` returns behind which byte of s the session has to end, and why, if it has to; and behind which
-- one there is the first place between two messages, nil if there is none.
local function reader(session, say)
  local counted = counting(session, say)
  local pieces, bytes, kind, is_kept, is_too_long, sound_at = {}, 0, nil, true, false, nil
  local end_at, reason, place

  local function finish(at, why)
    if not end_at then end_at, reason = at, why end
  end

  local function look_for_kind(s)
    kind = match(s, '^%s*{%s*"type"%s*:%s*"([%w_.]+)"')
    if not kind then return end
    is_kept = READ[kind] or false
    counted.begun(kind)
    if find(kind, "^response%..*audio%.delta$") then
      -- Behind this it is sound, but for two bytes that end it.
      local _, before = find(s, '"delta"%s*:%s*"')
      sound_at = before or 0
    end
    if not is_kept then pieces = {} end
  end

  local function on_piece(s, first, last)
    local before = bytes
    bytes = bytes + last - first + 1
    if not is_kept then return end
    if bytes > EVENT_BYTES_MAX then
      -- Let through, since the client has its beginning.
      pieces, is_kept, is_too_long = {}, false, true
      return
    end
    pieces[#pieces + 1] = sub(s, first, last)
    if not kind and before < KIND_BYTES and bytes >= KIND_BYTES then look_for_kind(concat(pieces)) end
  end

  -- What is wrong with a whole event; nil if nothing is.
  local function read_event(s)
    if not kind then look_for_kind(s) end
    if not kind then
      local first, last = {}, {}
      if not json.scan_object(s, 1, EVENT_FIELDS, first, last) then return "an event that is no JSON object" end
      kind = first.type and sub(s, first.type + 1, last.type - 1) or ""
      counted.begun(kind)
      if find(kind, "^response%..*audio%.delta$") then sound_at = 0 end
    end
    if READ[kind] and not counted.ended(kind, s) then return "an event whose usage cannot be read" end
  end

  local function on_message(at)
    place = place or at
    local problem = is_too_long and "an event too long to be read" or is_kept and read_event(concat(pieces)) or nil
    if sound_at then counted.sounded(max(0, bytes - sound_at - 2)) end
    if problem then
      finish(at, sessions.UNREADABLE)
      session.problem = problem
    elseif (READ[kind] or kind == CREATED) and not sessions.covers(session, max(session.open, 1)) then
      finish(at, sessions.SPENT)
    end
    pieces, bytes, kind, is_kept, is_too_long, sound_at = {}, 0, nil, true, false, nil
  end

  local frames = websocket.reader(false, on_piece, on_message)
  local is_readable, is_between = true, true

  local function read(s)
    if not is_readable then return end
    end_at, reason, place = nil, nil, is_between and 0 or nil
    local ok, whole, problem = pcall(frames.read, s)
    is_readable = ok and not problem
    if not is_readable then
      session.problem = problem or tostring(whole)
      finish(place or 0, sessions.UNREADABLE)
    end
    is_between = whole == #s
    return end_at, reason, place
  end

  return { read = read }
end

return { reader = reader }
