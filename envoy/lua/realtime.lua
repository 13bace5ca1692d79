-- Sessions: a WebSocket between client and provider on which the model answers many times. Called by request.lua and response.lua.
--
-- Of the request: the model in the query, the key that browsers write into a subprotocol. Then the client's bytes pass until the
-- session is told to end. Of the provider's: every event is told by its type, and the usage of those that have one is added up as
-- `usage_first`; when what was held could not pay for one more response, the client is told so and the session ends.
--
-- What a provider sends is read strictly and in bounded memory. What cannot be read ends the session: nobody could count what follows.

local json, websocket, sums, errors = require("json"), require("websocket"), require("sums"), require("errors")
local paths = require("paths")

local find, sub, match, gmatch, gsub, lower = string.find, string.sub, string.match, string.gmatch, string.gsub, string.lower
local char, concat, max, min, ceil = string.char, table.concat, math.max, math.min, math.ceil
local error, pcall, tonumber, tostring = error, pcall, tonumber, tostring

local NAMESPACE, SESSION_NAMESPACE = "tollgate", "tollgate.session"
local KEY_PROTOCOL = "openai-insecure-api-key."
-- What may be agreed on; whatever else stands there is for us, or for nobody.
local PROTOCOLS = { ["realtime"] = true, ["openai-beta.realtime-v1"] = true }
local EVENT_BYTES_MAX = 1048576   -- of an event that has to be read whole
local KIND_BYTES = 160            -- in which an event says what it is, if that stands in front
local DONE, CREATED = "response.done", "response.created"
local TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
local READ = { [DONE] = true, [TRANSCRIBED] = true }
local EVENT_FIELDS, RESPONSE_FIELDS = { type = true, response = true, usage = true }, { usage = true }
local POLICY, BROKEN = 1008, 1011

-- Whether a request asks for a WebSocket; by both headers, as Envoy sees it. Of other upgrades it lets none as far as here.
local function is_upgrade(headers)
  return headers:get("upgrade") ~= nil and find(lower(headers:get("connection") or ""), "upgrade", 1, true) ~= nil
end

-- The subprotocols that are sent on, and the key that stands among them, each nil if there is none.
local function split_protocols(text)
  local kept, key = {}, nil
  for name in gmatch(text, "[^,%s]+") do
    if sub(name, 1, #KEY_PROTOCOL) == KEY_PROTOCOL then
      key = key or sub(name, #KEY_PROTOCOL + 1)
    elseif PROTOCOLS[name] then
      kept[#kept + 1] = name
    end
  end
  return kept[1] and concat(kept, ", ") or nil, key
end

-- Puts the key where admission looks, unless there is one, and takes away what no provider may see, or what would compress its frames.
local function take_headers(headers)
  local protocols = headers:get("sec-websocket-protocol")
  if protocols then
    local kept, key = split_protocols(protocols)
    headers:remove("sec-websocket-protocol")
    if kept then headers:add("sec-websocket-protocol", kept) end
    if key and not headers:get("authorization") and not headers:get("x-api-key") then
      headers:replace("authorization", "Bearer " .. key)
    end
  end
  headers:remove("sec-websocket-extensions")
end

-- The model that the query names, and whatever else stands there, by its name. A provider would take it for a wish: another call to join,
-- another kind of session.
local function model_of(query)
  local model
  for part in gmatch(sub(query, 2), "[^&]+") do
    local name, value = match(part, "^([^=]*)=?(.*)$")
    if name ~= "model" or model then return nil, name end
    value = gsub(value, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end)
    model = paths.model_name(value, 1, #value) or false
  end
  return model
end

-- Reads what the handshake asks for into `known`. Returns what is wrong as status, code, message and field; nothing if nothing is.
local function read_handshake(headers, known, query)
  if not is_upgrade(headers) then
    return "426", "upgrade_required", "This is a WebSocket: ask for an upgrade to it."
  end
  local model, other = model_of(query)
  if other then
    return "400", "feature_not_offered", "Only the model is named in the query.", match(other, "^[%w_]+$")
  end
  if model == nil then return "400", "missing_model", "Name the model in the query: ?model=...", "model" end
  if not model then return "400", "invalid_model", "The query's 'model' is not a model's name.", "model" end
  known.model = model
  known.body_bytes = 0
end

-- Lets the client's bytes pass until the session is told to end; then the provider is told so, once, behind the frame that is under way.
local function follow_client(h)
  local frames = websocket.reader(true)
  local is_readable, is_told = true, false
  for chunk in h:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      local told = h:streamInfo():dynamicMetadata():get(SESSION_NAMESPACE)
      local is_ended = told ~= nil and told.ended
      local boundary
      if is_readable and not is_told then
        local s, problem = chunk:getBytes(0, length), nil
        boundary, problem = frames.read(s)
        is_readable = not problem          -- the provider will say so
        if is_ended then
          is_told = boundary ~= nil or problem ~= nil
          if is_told then chunk:setBytes(sub(s, 1, boundary or 0) .. websocket.GOING_AWAY) end
        end
      elseif is_ended then
        chunk:setBytes("")
      end
    end
  end
end

local function number(object, name)
  local value = object and object[name]
  return value or 0
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
local function counting(rates, held, say)
  local usage, heard = nil, nil
  local responses, transcriptions, open, unfinished = 0, 0, 0, 0

  local function tell()
    local parts = { '"responses":' .. responses, '"transcriptions":' .. transcriptions }
    if usage then parts[#parts + 1] = '"usage":' .. sums.text(usage) end
    if heard then parts[#parts + 1] = '"transcribed":' .. sums.text(heard) end
    say("usage_first", "{" .. concat(parts, ",") .. "}")
  end

  -- An event began whose type is known: what counts of it beside its usage.
  local function begun(kind)
    if kind == CREATED then
      open = open + 1
    elseif find(kind, "^response%..*%.delta$") then
      unfinished = unfinished + 1
      say("sse_events", unfinished)
    end
  end

  -- Adds the usage of a whole event. Returns whether it could be read.
  local function ended(kind, s)
    local first, last = {}, {}
    if not json.scan_object(s, 1, EVENT_FIELDS, first, last) then return false end
    local at = first.usage
    if kind == DONE then
      responses, open = responses + 1, max(0, open - 1)
      if open == 0 and unfinished > 0 then
        unfinished = 0
        say("sse_events", 0)
      end
      local inner = {}
      if not first.response or not json.scan_object(s, first.response, RESPONSE_FIELDS, inner, {}) then return false end
      at = inner.usage
      -- Null where a response has failed before the model was asked.
      if at and sub(s, at, at) == "{" then
        usage = usage or {}
        if not sums.add(usage, s, at) then return false end
      end
    else
      transcriptions = transcriptions + 1
      if at and sub(s, at, at) == "{" then
        heard = heard or {}
        if not sums.add(heard, s, at) then return false end
      end
    end
    tell()
    return true
  end

  -- Whether there is not enough for one more response, or for all that are under way: they may be several at once.
  local function is_spent()
    return spent(usage, heard, rates) + max(open, 1) * rates.response > held
  end

  return { begun = begun, ended = ended, is_spent = is_spent }
end

-- The messages of a provider. `finish(at, problem)` is called with the byte behind which the session has to end; without a problem, since
-- it has cost what it may.
local function provider_reader(counted, finish)
  local pieces, bytes, kind, is_kept, is_too_long = {}, 0, nil, true, false

  local function look_for_kind(s)
    kind = match(s, '^%s*{%s*"type"%s*:%s*"([%w_.]+)"')
    if not kind then return end
    is_kept = READ[kind] or false
    counted.begun(kind)
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
    end
    if READ[kind] and not counted.ended(kind, s) then return "an event whose usage cannot be read" end
  end

  local function on_message(at)
    local problem = is_too_long and "an event too long to be read" or is_kept and read_event(concat(pieces)) or nil
    if problem or ((READ[kind] or kind == CREATED) and counted.is_spent()) then finish(at, problem) end
    pieces, bytes, kind, is_kept, is_too_long = {}, 0, nil, true, false
  end

  return websocket.reader(false, on_piece, on_message)
end

local function farewell(request_id, problem)
  local status, code, message, close = "402", "session_limit_reached",
    "What was held for this session does not cover another response. Begin a new one.", POLICY
  if problem then
    status, code, message, close = "502", "provider_answer_unreadable", "The model provider's answer could not be read.", BROKEN
  end
  local error_object = errors.as_json(nil, request_id, status, code, message)
  return websocket.text('{"type":"error","event_id":"event_' .. request_id .. '",' .. sub(error_object, 2)), websocket.close(close)
end

-- Follows what the provider sends, from its 101 on. `grant` says what was held, and by which rates that is counted down.
local function follow_provider(h, grant)
  local headers = h:headers()
  local request_id = headers:get("x-request-id") or ""
  headers:remove("sec-websocket-extensions")
  local end_at, problem, is_over = nil, nil, false
  local counted = counting(grant.session, tonumber(grant.hold_nano_usd) or 0, function(name, value)
    h:streamInfo():dynamicMetadata():set(NAMESPACE, name, value)
  end)
  local frames = provider_reader(counted, function(at, found)
    if not end_at then end_at, problem = at, found end
  end)
  local is_readable = true

  for chunk in h:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      local s = chunk:getBytes(0, length)
      if is_readable then
        local ok, result, unread, at = pcall(frames.read, s)
        is_readable = ok and not unread
        if not is_readable and not end_at then end_at, problem = at or 0, unread or tostring(result) end
      end
      if is_over then
        -- It is counted on, and nobody is told.
        chunk:setBytes("")
      elseif end_at then
        is_over = true
        if problem then h:logErr("realtime: " .. problem) end
        local event, close = farewell(request_id, problem)
        -- Between the frames of one message there is no place for an event.
        chunk:setBytes(sub(s, 1, end_at) .. (is_readable and event or "") .. close)
        h:streamInfo():dynamicMetadata():set(SESSION_NAMESPACE, "ended", true)
      end
    end
  end
end

return {
  is_upgrade = is_upgrade, take_headers = take_headers, read_handshake = read_handshake, follow_client = follow_client, follow_provider = follow_provider,
}
