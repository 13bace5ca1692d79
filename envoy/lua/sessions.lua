-- What is known of each session that is open, for the scripts that follow its two directions. Called by realtime.lua, asking.lua and
-- answering.lua. To Envoy those are scripts that have nothing in common but the memory of their worker.

local websocket, errors = require("websocket"), require("errors")

local setmetatable, sub, concat, format = setmetatable, string.sub, table.concat, string.format

local POLICY, BROKEN, TRY_LATER = 1008, 1011, 1013

-- Held by the scripts that follow it alone: what nobody follows any more is gone.
local open = setmetatable({}, { __mode = "v" })

-- Why a session ends: what the client is told, and the code of the close frame.
local SPENT = {
  status = "402", code = "session_limit_reached", close = POLICY,
  message = "What was held for this session does not cover another response. Begin a new one.",
}
local CROWDED = {
  status = "402", code = "session_limit_reached", close = POLICY,
  message = "What was held for this session does not cover so many responses at once. Begin a new one.",
}
local UNCLEAR = {
  status = "400", code = "invalid_event", close = POLICY,
  message = "An event of the client could not be read: it is no JSON object, repeats or escapes a key, is longer than 16 MiB or in too many frames.",
}
local NO_ROOM = {
  status = "503", code = "gateway_error", close = TRY_LATER,
  message = "The gateway holds too much of events that are not whole yet. Begin a new session.",
}
local UNREADABLE = {
  status = "502", code = "provider_answer_unreadable", close = BROKEN, message = "The model provider's answer could not be read.",
}

-- What the client has sent since the last usage, and of that what the provider will read, whatever it takes for silence.
local function nothing_said()
  return { text_bytes = 0, image_bytes = 0, audio_bytes = 0, audio_bytes_kept = 0 }
end

-- Begins the session of a request. `asked` is how many responses the client waits for that have neither begun nor been refused, `ended` why the
-- session is over, once it is.
local function begin(id)
  local session = { id = id, said = nothing_said(), heard_bytes = 0, asked = 0, begun = 0, open = 0, spent = 0, used = 0 }
  open[id] = session
  return session
end

local function of(id)
  return open[id]
end

-- Whether there is the money for so many responses beside all that have ended. As long as nobody has said how much there is, it is for one.
local function covers(session, responses)
  local rates = session.rates
  if not rates then return responses <= 1 end
  return session.spent + responses * rates.response <= session.held
end

-- Why a session ends, as ext_authz words it.
local function limited(body)
  return { body = body, close = POLICY }
end

-- An event and a close frame for the client; without the event where there is no place for one, between the frames of a message.
local function farewell(session, has_place)
  local reason = session.ended
  if not has_place then return websocket.close(reason.close) end
  local body = reason.body or errors.as_json(nil, session.id, reason.status, reason.code, reason.message)
  local event = concat({ format('{"type":"error","event_id":"event_%s",', session.id), sub(body, 2) })
  return websocket.text(event) .. websocket.close(reason.close)
end

return {
  begin = begin, of = of, covers = covers, limited = limited, farewell = farewell, nothing_said = nothing_said,
  SPENT = SPENT, CROWDED = CROWDED, UNCLEAR = UNCLEAR, NO_ROOM = NO_ROOM, UNREADABLE = UNREADABLE,
}
