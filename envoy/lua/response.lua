-- The response side of front.lua: captures the provider's raw usage object, counts server-sent events, hides the usage chunk from a
-- client that did not ask for it, and a provider's quarrel with our credential from everybody. What an answer costs is told by cost.lua.

local json, cost, errors = require("json"), require("cost"), require("errors")

local find, sub, byte, lower = string.find, string.sub, string.byte, string.lower
local concat, tostring = table.concat, tostring
local skip_space, skip_string, skip_value = json.skip_space, json.skip_string, json.skip_value

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"
local USAGE_BYTES_MAX = 16384     -- a usage object longer than this is not one
local TIER_BYTES_MAX = 41         -- a word longer than this is no service tier
local EVENT_BYTES_MAX = 1048576   -- an event longer than this passes through unread
-- The last event of a response says again what it was told; request.lua sees to it that it stays below this.
local EVENT_BYTES_MAX_OF = { responses = 4194304 }
-- The object at the top level in which there may be one, and its name there: in the events of a stream, and in other answers.
local IN_EVENTS = { messages = { "message", "usage" }, responses = { "response", "usage" } }
local IN_BODIES = { rerank = { "meta", "billed_units" } }
local QUOTE, COMMA, COLON, OPEN_BRACE = json.QUOTE, json.COMMA, json.COLON, json.OPEN_BRACE

-- The raw texts of the usage object and of the service tier of the JSON object at i, each nil if it has none: at its top level or,
-- where `within` names one, at the top level of an object there, such as "message" of Anthropic's message_start. A "usage" anywhere
-- deeper is the model's own words, not the provider's. One pass, which ends where both are found.
local function usage_texts(s, i, name, within)
  local usage, tier, c
  i, c = skip_space(s, i)
  if c ~= OPEN_BRACE then return nil end
  i, c = skip_space(s, i + 1)
  while c == QUOTE do
    local close = skip_string(s, i + 1)
    if not close then return usage, tier end
    local key = close - i < 14 and sub(s, i + 1, close - 1)
    i, c = skip_space(s, close + 1)
    if c ~= COLON then return usage, tier end
    i, c = skip_space(s, i + 1)
    local value_last = skip_value(s, i, c)
    if not value_last then return usage, tier end
    if c == OPEN_BRACE then
      if key == name and value_last - i < USAGE_BYTES_MAX then
        usage = sub(s, i, value_last)
      elseif within and key == within[1] then
        local inner_usage, inner_tier = usage_texts(s, i, within[2])
        usage, tier = inner_usage or usage, inner_tier or tier
      end
    elseif key == "service_tier" and c == QUOTE and value_last - i <= TIER_BYTES_MAX then
      tier = sub(s, i + 1, value_last - 1)
    end
    if usage and tier then return usage, tier end
    i, c = skip_space(s, value_last + 1)
    if c ~= COMMA then return usage, tier end
    i, c = skip_space(s, i + 1)
  end
  return usage, tier
end

local function earlier(a_first, a_last, b_first, b_last)
  if b_first and (not a_first or b_first < a_first) then return b_first, b_last end
  return a_first, a_last
end

-- Where the event that begins at i ends: the index of the last byte of the blank line, or nil while it is incomplete.
local function event_last(s, i, has_cr)
  local first, last = find(s, "\n\n", i, true)
  if has_cr then
    first, last = earlier(first, last, find(s, "\n\r\n", i, true))
    first, last = earlier(first, last, find(s, "\r\r", i, true))
  end
  return last
end

-- The usage object and the service tier in the event from first to last. Its data may stand behind other lines.
local function event_usage(s, first, last, within)
  local data = first
  while sub(s, data, data + 4) ~= "data:" do
    local line_end = find(s, "\n", data, true) or find(s, "\r", data, true)
    if not line_end or line_end >= last then return nil end
    data = line_end + 1
  end
  return usage_texts(s, data + 5, "usage", within)
end

-- Reads the stream as it passes. A client that asked for no usage gets whole events only, less the one that carries
-- nothing but usage; any other client gets every byte as it comes.
--
-- Between chunks, `carry` is the beginning of an event whose end has not come yet; hidden from the client so far if
-- hide_usage, already sent otherwise. An event too long to keep is let through and not read (`oversized`).
local function on_stream(h, endpoint, hide_usage)
  local within, event_bytes_max = IN_EVENTS[endpoint], EVENT_BYTES_MAX_OF[endpoint] or EVENT_BYTES_MAX
  local carry, events, captured, oversized = "", 0, false, false
  local chunk, forwarded, service_tier

  local function capture(usage, tier)
    if usage then
      h:streamInfo():dynamicMetadata():set(NAMESPACE, captured and "usage_last" or "usage_first", usage)
      captured = true
    end
    if tier and tier ~= service_tier then
      h:streamInfo():dynamicMetadata():set(NAMESPACE, "service_tier", tier)
      service_tier = tier
    end
  end

  for next_chunk in h:bodyChunks() do
    chunk = next_chunk
    local length = chunk:length()
    local s = length > 0 and chunk:getBytes(0, length) or ""
    if carry ~= "" then s = carry .. s end
    local kept = hide_usage and {} or nil
    local position = 1
    local has_cr = find(s, "\r", 1, true)
    local mention = find(s, '"usage"', 1, true)      -- looked for once per chunk, not once per event
    while true do
      local last = event_last(s, position, has_cr)
      if not last then break end
      events = events + 1
      local usage
      if mention and mention < last then
        if not oversized then
          local tier
          usage, tier = event_usage(s, position, last, within)
          capture(usage, tier)
        end
        mention = find(s, '"usage"', last + 1, true)
      end
      if kept then
        local empty = usage and (find(s, '"choices":[]', position, true) or find(s, '"choices": []', position, true))
        if not (empty and empty < last) then kept[#kept + 1] = sub(s, position, last) end
      end
      oversized = false
      position = last + 1
    end
    carry = sub(s, position)
    if #carry > event_bytes_max then oversized = true end
    if kept then
      if oversized then
        kept[#kept + 1] = carry
        carry = ""
      end
      forwarded = concat(kept)
      chunk:setBytes(forwarded)
    elseif oversized then
      carry = sub(carry, -3)       -- enough to see the blank line that ends it
    end
    if events > 0 then h:streamInfo():dynamicMetadata():set(NAMESPACE, "sse_events", events) end
  end

  -- What is left is a last event without its blank line.
  if carry ~= "" and chunk then
    if hide_usage then chunk:setBytes(forwarded .. carry) end
    if not oversized and find(carry, '"usage"', 1, true) then capture(event_usage(carry, 1, #carry, within)) end
  end
end

-- A provider that refuses our credential tells the client about a key it never sent, sometimes quoting a part of it.
-- Known by the grant: a 401 or 403 to a request that was admitted is the provider's.
local function hide_credential_error(h, endpoint, request_id)
  local text = errors.as_json(errors.is_anthropic(endpoint), request_id,
    "502", "provider_credential_rejected", "The provider refused the credential of this gateway.")
  local body = h:body(true)
  local headers = h:headers()
  headers:replace(":status", "502")
  headers:replace("content-type", "application/json")
  headers:replace("x-should-retry", "false")
  headers:replace("content-length", tostring(body:setBytes(text)))
end

local function on_response(h)
  local metadata = h:streamInfo():dynamicMetadata()
  local told = metadata:get(NAMESPACE)
  if told and told.passes == 1 then          -- the second of the two filters, where nothing is done
    metadata:set(NAMESPACE, "passes", 2)
    return
  end
  local headers = h:headers()
  local cluster = headers:get("x-tg-cluster")      -- only if the client asks what the request costs
  if cluster then headers:remove("x-tg-cluster") end
  local request = told and told.request
  if not request or not request.endpoint or request.endpoint == "models" or request.endpoint == "model" then return end
  local status = headers:get(":status")
  if byte(status) ~= 50 then       -- not 2xx
    if status == "401" or status == "403" then
      local grant = told.lease or metadata:get(GRANT_NAMESPACE)
      if grant and not grant.error_code then hide_credential_error(h, request.endpoint, request.request_id) end
    end
    return
  end
  local content_type = headers:get("content-type")
  if not content_type then return end
  content_type = lower(content_type)
  if find(content_type, "text/event-stream", 1, true) then return on_stream(h, request.endpoint, request.hide_usage) end
  if not find(content_type, "json", 1, true) then return end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return end
  local s = body:getBytes(0, length)
  local within = IN_BODIES[request.endpoint]
  if not (within or find(s, '"usage"', 1, true)) then return end
  local usage, tier = usage_texts(s, 1, "usage", within)
  -- The handle from above is stale: body() may have waited.
  metadata = h:streamInfo():dynamicMetadata()
  if usage then metadata:set(NAMESPACE, "usage_first", usage) end
  if tier then metadata:set(NAMESPACE, "service_tier", tier) end
  local grant = cluster and usage and (told.lease or metadata:get(GRANT_NAMESPACE))
  if grant then cost.tell(h, cluster, status, request, grant, usage, tier) end
end

return { on_response = on_response }
