-- Sessions: a WebSocket between client and provider on which the model answers many times. Called by request.lua and response.lua.
--
-- Of the request: the model in the query, the key that browsers write into a subprotocol. Then both directions are followed: the client's
-- events by asking.lua, the provider's by answering.lua. When what was held could not pay for what is asked for or under way, the client
-- is told so and the session ends on both sides.

local websocket, sessions, asking, answering = require("websocket"), require("sessions"), require("asking"), require("answering")
local paths, limits, hang_up = require("paths"), require("limits"), require("hang_up")

local find, sub, match, gmatch, gsub, lower = string.find, string.sub, string.match, string.gmatch, string.gsub, string.lower
local char, concat, max, pcall, tonumber, tostring = string.char, table.concat, math.max, pcall, tonumber, tostring

local NAMESPACE = "tollgate"
local KEY_PROTOCOL = "openai-insecure-api-key."
-- What may be agreed on; whatever else stands there is for us, or for nobody.
local PROTOCOLS = { ["realtime"] = true, ["openai-beta.realtime-v1"] = true }
local MINUTE_MS = 61000           -- over which tokens are counted
local GOODBYE_MS = 1000           -- in which a client may end a session itself that is over

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
  known.request_id = headers:get("x-request-id")
end

-- What `read` returns of a piece; what cannot be read ends the session, since an error here would let all that follows pass.
local function safely(h, read, s)
  local ok, whole, before, reason = pcall(read, s)
  if ok then return whole, before, reason end
  h:logErr("realtime: " .. tostring(whole))
  return 0, "", sessions.UNCLEAR
end

-- Sends the client's events on, each once it is whole, until the session is over; then the provider is told so, once.
local function follow_client(h, id)
  local session = sessions.begin(id)
  local events = asking.reader(session)
  local is_told = false
  for chunk in h:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      if session.ended then
        chunk:setBytes(is_told and "" or websocket.GOING_AWAY)
        is_told = true
      else
        local s = chunk:getBytes(0, length)
        local whole, before, reason = safely(h, events.read, s)
        session.ended, is_told = reason, reason ~= nil
        if is_told or before ~= "" or whole < length then
          chunk:setBytes(before .. sub(s, 1, whole) .. (is_told and websocket.GOING_AWAY or ""))
        end
      end
    end
  end
end

-- Follows what the provider sends, from its 101 on. `grant` says what was held, and by which rates that is counted down.
local function follow_provider(h, grant, id)
  h:headers():remove("sec-websocket-extensions")
  local session = sessions.of(id) or sessions.begin(id)
  session.rates, session.held = grant.session, tonumber(grant.hold_nano_usd) or 0
  local events = answering.reader(session, function(name, value)
    h:streamInfo():dynamicMetadata():set(NAMESPACE, name, value)
  end)
  local over_at, is_hung_up = nil, false

  for chunk in h:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      local s = chunk:getBytes(0, length)
      local end_at, reason, place = events.read(s)
      if over_at then
        -- It is counted on, and nobody is told.
        chunk:setBytes("")
        if not is_hung_up and h:timestamp() >= over_at + GOODBYE_MS then
          local info = h:streamInfo()
          hang_up.hang_up(info:downstreamDirectRemoteAddress(), info:downstreamLocalAddress())
          is_hung_up = true
        end
      else
        -- The client itself or ext_authz may have ended it meanwhile.
        if session.ended then end_at = place or end_at else session.ended = reason end
        if end_at then
          over_at = h:timestamp()
          if session.problem then h:logErr("realtime: " .. session.problem) end
          chunk:setBytes(sub(s, 1, end_at) .. sessions.farewell(session, place ~= nil))
        end
      end
    end
  end
end

-- Where tokens per minute are limited: has ext_authz count what responses have used, as they end, and asks it at the beginning of each whether there
-- is anything left. In a filter of its own in front of the one that reads, since what comes while it waits for an answer passes it unread.
local function follow_limits(h, grant, id)
  if not grant.tokens_per_minute then return end
  local session = sessions.of(id) or sessions.begin(id)
  local reserved, began_at = tonumber(grant.reserved_tokens) or 0, h:timestamp()
  local counted, asked = reserved, 0
  for _ in h:bodyChunks() do
    local used = session.used
    if used > counted then
      limits.count(h, grant, used - counted)
      counted = used
      h:streamInfo():dynamicMetadata():set(NAMESPACE, "counted_tokens", used)
    end
    -- Envoy hands on what has come only when more does, and as long as a response is under way more will.
    if session.begun > asked and session.open > 0 and not session.ended then
      asked = session.begun
      local is_counted_still = h:timestamp() < began_at + MINUTE_MS
      local refusal = limits.ask(h, grant, is_counted_still and max(0, reserved - used) or 0)
      if refusal then session.ended = sessions.limited(refusal) end
    end
  end
end

return {
  is_upgrade = is_upgrade, take_headers = take_headers, read_handshake = read_handshake, follow_client = follow_client, follow_provider = follow_provider,
  follow_limits = follow_limits,
}
