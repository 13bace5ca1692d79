-- The response side of front.lua: captures the provider's raw usage object, counts server-sent events, hides the usage chunk from a
-- client that did not ask for it, and a provider's quarrel with our credential from everybody. What an answer costs is told by cost.lua.

local json, cache, cost, errors, kept = require("json"), require("cache"), require("cost"), require("errors"), require("kept")
local realtime = require("realtime")

local find, sub, byte, lower, match = string.find, string.sub, string.byte, string.lower, string.match
local concat, max, min, pairs, tostring = table.concat, math.max, math.min, pairs, tostring
local skip_space, skip_string, skip_value = json.skip_space, json.skip_string, json.skip_value

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"
local USAGE_BYTES_MAX = 16384     -- a usage object longer than this is not one
local TIER_BYTES_MAX = 41         -- a word longer than this is no service tier
local EVENT_BYTES_MAX = 1048576   -- of an event longer than this the end is read, and no more
-- The last event of a response says again what it was told; bodies.lua sees to it that it stays below this. That of a transcription
-- has all its text, maybe with how likely each word is.
local EVENT_BYTES_MAX_OF = { responses = 4194304, stored_responses = 4194304, transcriptions = 4194304 }
-- The object at the top level in which there may be one, and its name there: in the events of a stream, and in other answers.
local IN_RESPONSE = { "response", "usage" }
local IN_EVENTS = { messages = { "message", "usage" }, responses = IN_RESPONSE, stored_responses = IN_RESPONSE }
-- What the usage is called, where that is not "usage".
local USAGE_OF = { generate = "usageMetadata", stream_generate = "usageMetadata" }
local IN_BODIES = { rerank = { "meta", "billed_units" } }
-- Where there may be no usage, but the length of the sound at the top level.
local WITH_DURATION = { transcriptions = true, translations = true }
local DURATION = { duration = true }
-- Their answers may be longer than Envoy keeps, and say their usage in front of what is long, or behind it.
local IN_PIECES = { embeddings = true, images = true, image_edits = true }
local END_BYTES = 32768           -- of what is too long to be kept: its usage and all that stands behind it
local KIND_BYTES = 160            -- in which an event of a response says what it is
local QUOTE, COMMA, COLON, OPEN_BRACE = json.QUOTE, json.COMMA, json.COLON, json.OPEN_BRACE
local CLOSE_BRACE, OPEN_BRACKET, BACKSLASH = json.CLOSE_BRACE, json.OPEN_BRACKET, json.BACKSLASH
local CLOSE_BRACKET = OPEN_BRACKET + 2

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
    local key = close - i < 15 and sub(s, i + 1, close - 1)
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

-- In the place of a usage, the length of the sound that was heard, in seconds as the provider writes them; nil if it does not.
local function duration_text(s)
  local first, last = {}, {}
  if not json.scan_object(s, 1, DURATION, first, last) or not first.duration then return nil end
  local seconds = match(sub(s, first.duration, last.duration), '^"?(%d+%.?%d*)"?$')
  return seconds and '{"duration":' .. seconds .. "}"
end

-- Whether the quotation mark at i is a part of the string that it stands in; nil if that is told by what is in front of s.
local function is_escaped(s, i)
  local k = i - 1
  while byte(s, k) == BACKSLASH do k = k - 1 end
  if k == 0 then return nil end
  return (i - k) % 2 == 0
end

-- The same as usage_texts finds, of the JSON object that ends s and whose beginning may be missing. Read from behind: outside of
-- strings a quotation mark ends one, and the next that is not escaped begins it, so nobody's words are taken for the provider's.
-- An object `within` counts if it begins in front of s, or has that name.
local function usage_texts_at_end(s, name, within)
  local usage, tier, depth, i = nil, nil, 0, #s
  local wanted = within and 2 or 1
  if within then name = within[2] end
  while i > 0 and not (usage and tier) do
    local c = byte(s, i)
    if c == CLOSE_BRACE or c == CLOSE_BRACKET then
      depth = depth + 1
    elseif c == OPEN_BRACE or c == OPEN_BRACKET then
      depth = depth - 1
      if depth < wanted then
        if not within or find(sub(s, max(1, i - 40), i - 1), '"' .. within[1] .. '"%s*:%s*$') then break end
        usage, tier = nil, nil
      end
    elseif c == QUOTE then
      local escaped, open = is_escaped(s, i), i
      if escaped then return nil end           -- s does not end where the object does
      repeat
        open = open - 1
        while open > 0 and byte(s, open) ~= QUOTE do open = open - 1 end
        escaped = open > 0 and is_escaped(s, open)
        if escaped == nil or open == 0 then return usage, tier end
      until not escaped
      if depth == wanted then
        local at, follows = skip_space(s, i + 1)
        if follows == COLON then
          local key = sub(s, open + 1, i - 1)
          at, follows = skip_space(s, at + 1)
          local value_last = (key == name or key == "service_tier") and skip_value(s, at, follows)
          if value_last and key == name and follows == OPEN_BRACE and value_last - at < USAGE_BYTES_MAX then
            usage = usage or sub(s, at, value_last)
          elseif value_last and key ~= name and follows == QUOTE and value_last - at <= TIER_BYTES_MAX then
            tier = tier or sub(s, at + 1, value_last - 1)
          end
        end
      end
      i = open
    end
    i = i - 1
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
local function event_usage(s, first, last, name, within)
  local data = first
  while sub(s, data, data + 4) ~= "data:" do
    local line_end = find(s, "\n", data, true) or find(s, "\r", data, true)
    if not line_end or line_end >= last then return nil end
    data = line_end + 1
  end
  return usage_texts(s, data + 5, name, within)
end

-- What is no output: a block of comments, and of a response whatever is no delta; the rest says again what was asked for or was
-- delivered before.
local function is_comment(s, first, last)
  if byte(s, first) ~= COLON then return false end
  local data = find(s, "data:", first, true)
  return not data or data > last
end

local function is_delta(s, first)
  local beginning = sub(s, first, first + KIND_BYTES - 1)
  return find(beginning, '"type"%s*:%s*"response%.[%w_.]*%.delta"') ~= nil
    or find(beginning, "^event:%s*response%.[%w_.]*%.delta%s") ~= nil
end

-- Reads the stream as it passes. A client that asked for no usage gets whole events only, less the one that carries
-- nothing but usage; any other client gets every byte as it comes.
--
-- Between chunks, `carry` is the beginning of an event whose end has not come yet; hidden from the client so far if
-- hide_usage, but for the first `sent` bytes. An event too long to keep (`oversized`) is let through, and only its end is kept:
-- `dropped` bytes are gone. The first events are handed to `look`, if there is one, until it returns true.
local function on_stream(h, endpoint, hide_usage, look)
  local within, event_bytes_max = IN_EVENTS[endpoint], EVENT_BYTES_MAX_OF[endpoint] or EVENT_BYTES_MAX
  local name = USAGE_OF[endpoint] or "usage"
  local quoted = '"' .. name .. '"'
  local only_deltas = within == IN_RESPONSE
  local carry, events, captured = "", 0, false
  local oversized, oversized_is_output, dropped, sent = false, false, 0, 0
  local beside, told_beside = 0, 0
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

  local function read(s, first, last)
    if oversized then return usage_texts_at_end(sub(s, max(first, last - END_BYTES + 1), last), name, within) end
    return event_usage(s, first, last, name, within)
  end

  local function is_output(s, first)
    if oversized then return oversized_is_output end
    return not only_deltas or is_delta(s, first)
  end

  for next_chunk in h:bodyChunks() do
    chunk = next_chunk
    local length = chunk:length()
    local s = length > 0 and chunk:getBytes(0, length) or ""
    if carry ~= "" then s = carry .. s end
    local kept = hide_usage and {} or nil
    local position = 1
    local has_cr = find(s, "\r", 1, true)
    local mention = find(s, quoted, 1, true)         -- looked for once per chunk, not once per event
    while true do
      local last = event_last(s, position, has_cr)
      if not last then break end
      local usage
      if mention and mention < last then
        local tier
        usage, tier = read(s, position, last)
        capture(usage, tier)
        mention = find(s, quoted, last + 1, true)
      end
      if not oversized and is_comment(s, position, last) then
        beside = beside + last - position + 1
      else
        events = events + 1
        if look and look(s, position, last) then look = nil end
        if not is_output(s, position) then beside = beside + dropped + last - position + 1 end
      end
      if kept then
        local empty = usage and not oversized
          and (find(s, '"choices":[]', position, true) or find(s, '"choices": []', position, true))
        if not (empty and empty < last) then kept[#kept + 1] = sub(s, position + sent, last) end
      end
      oversized, dropped, sent = false, 0, 0
      position = last + 1
    end
    carry = sub(s, position)
    if not oversized and #carry > event_bytes_max then
      oversized_is_output = is_output(carry, 1)
      oversized = true
    end
    if oversized then
      if kept then kept[#kept + 1] = sub(carry, sent + 1) end
      dropped = dropped + max(0, #carry - END_BYTES)
      carry = sub(carry, -END_BYTES)
      sent = #carry
    end
    if kept then
      forwarded = concat(kept)
      chunk:setBytes(forwarded)
    end
    if events > 0 or beside > 0 then h:streamInfo():dynamicMetadata():set(NAMESPACE, "sse_events", events) end
    local beside_now = beside
    if only_deltas and carry ~= "" and not is_output(carry, 1) then beside_now = beside_now + dropped + #carry end
    if beside_now ~= told_beside then
      h:streamInfo():dynamicMetadata():set(NAMESPACE, "sse_beside_bytes", beside_now)
      told_beside = beside_now
    end
  end

  -- What is left is a last event without its blank line.
  if carry ~= "" and chunk then
    if hide_usage then chunk:setBytes(forwarded .. sub(carry, sent + 1)) end
    if find(carry, quoted, 1, true) then capture(read(carry, 1, #carry)) end
  end
end

-- Lets an answer pass as it comes, and reads its beginning and its end.
local function on_pieces(h)
  local beginning, ending, passed = "", "", 0
  for chunk in h:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      if #beginning < END_BYTES then
        beginning = beginning .. chunk:getBytes(0, min(length, END_BYTES - #beginning))
      end
      local tail = min(length, END_BYTES)
      ending = sub(ending .. chunk:getBytes(length - tail, tail), -END_BYTES)
      passed = passed + length
    end
  end
  local usage, tier = usage_texts(beginning, 1, "usage")
  if passed > #beginning and not (usage and tier) then
    local last_usage, last_tier = usage_texts_at_end(ending, "usage")
    usage, tier = usage or last_usage, tier or last_tier
  end
  local metadata = h:streamInfo():dynamicMetadata()
  if usage then metadata:set(NAMESPACE, "usage_first", usage) end
  if tier then metadata:set(NAMESPACE, "service_tier", tier) end
end

-- A provider that refuses our credential tells the client about a key it never sent, sometimes quoting a part of it.
-- Known by the grant: a 401 or 403 to a request that was admitted is the provider's.
local function hide_credential_error(h, endpoint, request_id, is_own)
  local form, text = errors.form_of(endpoint), nil
  if is_own then
    text = errors.as_json(form, request_id, "502", "own_key_rejected", "The provider refused your organisation's own key.")
  else
    text = errors.as_json(form, request_id,
      "502", "provider_credential_rejected", "The provider refused the credential of this gateway.")
  end
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
  local is_second = told and told.passes == 1 or false
  if is_second then metadata:set(NAMESPACE, "passes", 2) end
  local headers = h:headers()
  if told and told.request and told.request.endpoint == "realtime" and headers:get(":status") == "101" then
    local follow = is_second and realtime.follow_provider or realtime.follow_limits
    return follow(h, metadata:get(GRANT_NAMESPACE) or {}, told.request.request_id)
  end
  if is_second then return end               -- there is nothing else to be done in the second of the two filters
  local left = told and told.lease and told.lease.rate_limits
  if left then
    for name, value in pairs(left) do headers:replace("x-ratelimit-" .. name, value) end
  end
  local cluster = headers:get("x-tg-cluster")      -- only if the client asks what the request costs
  if cluster then headers:remove("x-tg-cluster") end
  local is_own = told and told.own_key_org and headers:get("x-tg-own-key")
  if is_own then headers:remove("x-tg-own-key") end
  local request = told and told.request
  if not request or not request.endpoint then return end
  -- No provider has answered.
  if request.endpoint == "models" or request.endpoint == "model" or kept.OURS[request.endpoint] then return end
  local is_cached = request.cache and cache.told(headers, metadata)
  if is_cached and cluster then
    headers:replace("x-tollgate-cost", "0.00")
    cluster = nil
  end
  local kept_at
  if request.keeps or not request.model then
    kept_at = headers:get("x-tg-kept-at")
    headers:remove("x-tg-kept-at")
  end
  local status = headers:get(":status")
  if byte(status) ~= 50 then       -- not 2xx
    if status == "401" or status == "403" then
      local grant = told.lease or metadata:get(GRANT_NAMESPACE)
      if grant and not grant.error_code then hide_credential_error(h, request.endpoint, request.request_id, is_own) end
    end
    return
  end
  if not request.model then return kept.on_response(h, kept_at, status, request, metadata:get(GRANT_NAMESPACE)) end
  local content_type = headers:get("content-type")
  if not content_type then return end
  content_type = lower(content_type)
  if find(content_type, "text/event-stream", 1, true) then
    -- Of an answer from the cache, or of a provider that sends all at once: it is about to be less.
    if request.hide_usage then headers:remove("content-length") end
    return on_stream(h, request.endpoint, request.hide_usage, kept_at and kept.on_events(h, kept_at, status, request))
  end
  if not find(content_type, "json", 1, true) then return end
  -- What it costs is told in a header, so then all of it is waited for.
  if IN_PIECES[request.endpoint] and not cluster then return on_pieces(h) end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return end
  local s = body:getBytes(0, length)
  local within, has_duration = IN_BODIES[request.endpoint], WITH_DURATION[request.endpoint]
  local name = USAGE_OF[request.endpoint] or "usage"
  if not (within or has_duration or request.keeps or find(s, '"' .. name .. '"', 1, true)) then return end
  local usage, tier = usage_texts(s, 1, name, within)
  if not usage and has_duration then usage = duration_text(s) end
  -- The handle from above is stale: body() may have waited.
  metadata = h:streamInfo():dynamicMetadata()
  if usage then metadata:set(NAMESPACE, "usage_first", usage) end
  if tier then metadata:set(NAMESPACE, "service_tier", tier) end
  local grant = cluster and usage and (told.lease or metadata:get(GRANT_NAMESPACE))
  if grant then cost.tell(h, cluster, status, request, grant, usage, tier) end
  if request.keeps then kept.on_answer(h, kept_at, status, request, s) end
end

return { on_response = on_response }
