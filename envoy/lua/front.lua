-- The one Lua filter in front of everything (downstream, before ext_authz).
--
-- Request: finds the endpoint, turns away what brings no key, checks the JSON body, chooses the route by model (for a test key:
-- the endpoint's test route, whatever the model), asks the provider for usage, and prepares the body for the first provider of the chain. Response: captures the provider's raw
-- usage object, counts server-sent events, and hides the usage chunk from a client that did not ask for it.
--
-- Leaves behind: header x-tg-route (the routing key), header x-tg-prepared (the cluster the body is prepared for), and
-- dynamic metadata "tollgate": request, plan, usage_first, usage_last, service_tier, sse_events (gateway_core/contract.py).
--
-- string.byte and plain string.find compile to machine code; Lua patterns do not, so none stands in a loop over a body. An
-- error anywhere in a request answers 503: this filter fails closed.

local find, sub, byte, format, lower = string.find, string.sub, string.byte, string.format, string.lower
local concat, tonumber, tostring, pcall, floor = table.concat, tonumber, tostring, pcall, math.floor

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"
local DEPTH_MAX = 512             -- nesting of JSON; real tool schemas stay below 40
local KEYS_MAX = 1000             -- keys at the top level; real requests stay below 40
-- By the beginning of a key; gateway_core/api_keys.py.
local MODES = { ["sk-tg-live-"] = "live", ["sk-tg-test-"] = "test" }
local KEY_LENGTH, KEY_PREFIX_LENGTH = 60, 11
local USAGE_BYTES_MAX = 16384     -- a usage object longer than this is not one
local TIER_BYTES_MAX = 41         -- a word longer than this is no service tier
local EVENT_BYTES_MAX = 1048576   -- an event longer than this passes through unread

-- Paths and methods we serve; gateway_core/endpoints.py holds the same table.
local ENDPOINTS = {
  ["POST /v1/chat/completions"] = "chat",
  ["POST /v1/messages"] = "messages",
  ["GET /v1/models"] = "models",
}

-- Top-level fields of a request body that somebody here needs.
local REQUEST_FIELDS = {
  model = true, stream = true, stream_options = true, max_tokens = true, max_completion_tokens = true, n = true,
  service_tier = true, speed = true, models = true, tools = true, web_search_options = true, modalities = true,
  inference_geo = true,
}
-- Of those, the ones that must be null or a whole number >= 1: a provider might be more generous in reading them than we are.
local WHOLE_NUMBERS = { "max_tokens", "max_completion_tokens", "n" }
-- Words that bring in what the body's length does not tell: images, files and documents by reference, pages that the provider
-- finds or fetches; and the escapes behind which such a word could hide, which no encoder writes for a letter.
local WEB_SEARCH = '"web_search'
local SEARCH_TOOL = '"web_search_20'   -- the provider's own search, as Anthropic names it with a date
local REFERENCES = {
  '"image_url"', '"file_id"', '"file_data"', '"file_url"', '"document"', '"image"', '"web_',
  '"mcp_servers"', '"mcp_toolset"', '"container"', '"code_execution', '"skills"', "\\u004", "\\u005", "\\u006", "\\u007",
}
local STREAM_OPTIONS_FIELDS = { include_usage = true }

local QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93

---------------------------------------------------------------------------------------------------------------- JSON

local NOT_JSON = "The body is not valid JSON."

-- Skips white space from i; returns the index and the byte there (nil at the end).
local function skip_space(s, i)
  local c = byte(s, i)
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = byte(s, i)
  end
  return i, c
end

-- i is just behind the opening quote; returns the index of the closing one, or nil.
local function skip_string(s, i)
  while true do
    local close = find(s, '"', i, true)
    if not close then return nil end
    local k = close - 1
    while byte(s, k) == BACKSLASH do k = k - 1 end
    if (close - k) % 2 == 1 then return close end
    i = close + 1
  end
end

local function skip_digits(s, i)
  local c = byte(s, i)
  while c ~= nil and c >= 48 and c <= 57 do
    i = i + 1
    c = byte(s, i)
  end
  return i, c
end

-- A number begins at i; returns the index of its last byte, or nil.
local function skip_number(s, i)
  if byte(s, i) == 45 then i = i + 1 end
  local first = i
  local c
  i, c = skip_digits(s, i)
  if i == first then return nil end
  if c == 46 then
    first = i + 1
    i, c = skip_digits(s, first)
    if i == first then return nil end
  end
  if c == 69 or c == 101 then
    c = byte(s, i + 1)
    first = (c == 43 or c == 45) and i + 2 or i + 1
    i = skip_digits(s, first)
    if i == first then return nil end
  end
  return i - 1
end

-- A string, number or literal begins at i with byte c; returns the index of its last byte, or nil.
local function skip_scalar(s, i, c)
  if c == QUOTE then return skip_string(s, i + 1) end
  if c == 116 then return sub(s, i, i + 3) == "true" and i + 3 or nil end
  if c == 102 then return sub(s, i, i + 4) == "false" and i + 4 or nil end
  if c == 110 then return sub(s, i, i + 3) == "null" and i + 3 or nil end
  return c ~= nil and skip_number(s, i) or nil
end

local open_brackets = {}

-- A value begins at i with byte c; returns the index of its last byte, or nil if it is not JSON. What is inside a string is
-- not looked at.
local function skip_value(s, i, c)
  if c ~= OPEN_BRACE and c ~= OPEN_BRACKET then return skip_scalar(s, i, c) end
  local depth = 1
  open_brackets[1] = c
  local opened = true
  i, c = skip_space(s, i + 1)
  while true do
    -- Here c is the first byte of an element, or what closes a bracket that has just been opened.
    if not (opened and c == open_brackets[depth] + 2) then
      if open_brackets[depth] == OPEN_BRACE then
        i = c == QUOTE and skip_string(s, i + 1)
        if not i then return nil end
        i, c = skip_space(s, i + 1)
        if c ~= COLON then return nil end
        i, c = skip_space(s, i + 1)
      end
      opened = c == OPEN_BRACE or c == OPEN_BRACKET
      if opened then
        depth = depth + 1
        if depth > DEPTH_MAX then return nil end
        open_brackets[depth] = c
      else
        i = skip_scalar(s, i, c)
        if not i then return nil end
      end
      i, c = skip_space(s, i + 1)
    end
    if not opened or c == open_brackets[depth] + 2 then
      while c == open_brackets[depth] + 2 do
        depth = depth - 1
        if depth == 0 then return i end
        i, c = skip_space(s, i + 1)
      end
      if c ~= COMMA then return nil end
      opened = false
      i, c = skip_space(s, i + 1)
    end
  end
end

-- Walks the object that begins at i. first[key] and last[key] become the span of the value of each wanted key.
-- Returns the index of the closing brace, or nil and what is wrong. A key is refused if another parser might take it for one
-- that we read: repeated, escaped, other than plain ASCII, or differing from a known one only in case.
local function scan_object(s, i, wanted, first, last)
  local c
  i, c = skip_space(s, i)
  if c ~= OPEN_BRACE then return nil, "The body must be a JSON object." end
  local seen, count = {}, 0
  i, c = skip_space(s, i + 1)
  if c == CLOSE_BRACE then return i end
  while true do
    if c ~= QUOTE then return nil, NOT_JSON end
    local close = skip_string(s, i + 1)
    if not close then return nil, NOT_JSON end
    local key = sub(s, i + 1, close - 1)
    if find(key, "[^ -~]") or find(key, "\\", 1, true) then
      return nil, "Top-level keys must be plain ASCII without escape sequences."
    end
    local folded = lower(key)
    if seen[folded] then return nil, "The same key appears twice." end
    if folded ~= key and wanted[folded] then return nil, "Keys are written in lower case." end
    seen[folded] = true
    count = count + 1
    if count > KEYS_MAX then return nil, "The body has too many keys." end
    i, c = skip_space(s, close + 1)
    if c ~= COLON then return nil, NOT_JSON end
    i, c = skip_space(s, i + 1)
    local value_last = skip_value(s, i, c)
    if not value_last then return nil, NOT_JSON end
    if wanted[key] then
      first[key] = i
      last[key] = value_last
    end
    i, c = skip_space(s, value_last + 1)
    if c == CLOSE_BRACE then return i end
    if c ~= COMMA then return nil, NOT_JSON end
    i, c = skip_space(s, i + 1)
  end
end

-- The body as a whole: one object and nothing behind it. Returns the index of its closing brace, or nil and what is wrong.
local function scan_body(s, first, last)
  local close, problem = scan_object(s, 1, REQUEST_FIELDS, first, last)
  if not close then return nil, problem end
  local _, rest = skip_space(s, close + 1)
  if rest ~= nil then return nil, "There is something behind the JSON object." end
  return close
end

------------------------------------------------------------------------------------------------------------- request

-- Answers with an error in OpenAI's shape. `known` is what the log line is told of the request besides.
local function refuse(h, known, status, code, message, param)
  known.error_code = code
  h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
  h:respond(
    { [":status"] = status, ["content-type"] = "application/json" },
    format('{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
      message, status == "503" and "server_error" or "invalid_request_error", param and '"' .. param .. '"' or "null", code))
end

-- The mode of the key that a request brings, or nil if it brings nothing of a key's form. Whether it is a key, ext_authz
-- decides, and that its mode is this one; this keeps strangers from having their bodies buffered and scanned. Which header
-- counts is credential_of in gateway_core/api_keys.py.
local function mode_of(headers)
  local authorization = headers:get("authorization")
  local key
  if authorization and lower(sub(authorization, 1, 7)) == "bearer " then
    key = sub(authorization, 8)
  else
    key = headers:get("x-api-key")
  end
  return key and #key == KEY_LENGTH and MODES[sub(key, 1, KEY_PREFIX_LENGTH)] or nil
end

-- A model name is what routing and prices hang on, so only plain characters: letters, digits, - . / : _ @
local function model_name(s, first, last)
  if byte(s, first) ~= QUOTE or last - first < 2 or last - first > 200 then return nil end
  for i = first + 1, last - 1 do
    local c = byte(s, i)
    local plain = (c >= 97 and c <= 122) or (c >= 65 and c <= 90) or (c >= 45 and c <= 58) or c == 95 or c == 64
    if not plain then return nil end
  end
  return sub(s, first + 1, last - 1)
end

-- The word of lower case letters, digits and underscores at a span, or nil for null or nothing; false for anything else.
local function plain_word(s, first, last)
  if not first or byte(s, first) == 110 then return nil end
  if byte(s, first) ~= QUOTE or last - first < 2 or last - first > 40 then return false end
  for i = first + 1, last - 1 do
    local c = byte(s, i)
    if not ((c >= 97 and c <= 122) or (c >= 48 and c <= 57) or c == 95) then return false end
  end
  return sub(s, first + 1, last - 1)
end

-- The whole number at a span, or nil for null; false for anything else.
local function whole_number(s, first, last)
  if not first or byte(s, first) == 110 then return nil end
  local value = tonumber(sub(s, first, last))
  if not value or value < 1 or value > 1e9 or value ~= floor(value) then return false end
  return value
end

-- Whether the text, which begins with a quotation mark, stands in s from first to last and not inside a string there.
local function has_word(s, text, first, last)
  local i = find(s, text, first, true)
  while i and i <= last do
    if byte(s, i - 1) ~= BACKSLASH then return true end
    i = find(s, text, i + 1, true)
  end
  return false
end

-- The meters that the provider will count whatever the model makes of the request, by their names in gateway_core/usage.py, with
-- commas between; nil if there are none.
local function asked_meters(s, endpoint, first, last)
  local meters = {}
  if endpoint == "messages" then
    if first.tools and has_word(s, SEARCH_TOOL, first.tools, last.tools) then meters[1] = "web_search" end
  else
    if first.web_search_options and byte(s, first.web_search_options) ~= 110 then meters[1] = "web_search" end
    if has_word(s, '"input_audio"', 1, #s) then meters[#meters + 1] = "audio_input" end
    local from, to = first.modalities, last.modalities
    if from and byte(s, from) ~= 110 then
      -- Behind an escape could be either; no encoder writes one for a letter.
      local hidden = find(sub(s, from, to), "\\", 1, true)
      if hidden or has_word(s, '"audio"', from, to) then meters[#meters + 1] = "audio_output" end
      if hidden or has_word(s, '"image"', from, to) then meters[#meters + 1] = "image_output" end
    end
  end
  return meters[1] and concat(meters, ",") or nil
end

-- Whether the body names something that is not in it.
local function has_references(s)
  for i = 1, #REFERENCES do
    if find(s, REFERENCES[i], 1, true) then return true end
  end
  return false
end

-- Returns an edit {first, last, text} that makes the provider send usage at the end of a chat stream, and whether
-- the client has to be spared the extra chunk. Everything else the client put into stream_options stays.
local function ask_for_usage(s, close, first, last)
  local options = first.stream_options
  if not options or byte(s, options) == 110 then   -- absent, or null
    if options then return { options, last.stream_options, '{"include_usage":true}' }, true end
    return { close, close - 1, ',"stream_options":{"include_usage":true}' }, true
  end
  local inner_first, inner_last = {}, {}
  local inner_close, problem = scan_object(s, options, STREAM_OPTIONS_FIELDS, inner_first, inner_last)
  if not inner_close then return nil, false, problem end
  local flag = inner_first.include_usage
  if not flag then
    local _, c = skip_space(s, options + 1)
    return { options + 1, options, c == CLOSE_BRACE and '"include_usage":true' or '"include_usage":true,' }, true
  end
  if byte(s, flag) == 116 then return nil, false end
  return { flag, inner_last.include_usage, "true" }, true
end

-- Applies the edit `mark` and, unless it is nil, `edit`, whose span is another one. Returns the new text and the span at which
-- the text of `mark` stands in it.
local function apply_edits(s, edit, mark)
  local a, b = mark, edit
  if edit and edit[1] < mark[1] then a, b = edit, mark end
  local text, shift
  if b == nil then
    text = concat({ sub(s, 1, a[1] - 1), a[3], sub(s, a[2] + 1) })
    shift = 0
  else
    text = concat({ sub(s, 1, a[1] - 1), a[3], sub(s, a[2] + 1, b[1] - 1), b[3], sub(s, b[2] + 1) })
    shift = b == mark and #a[3] - (a[2] - a[1] + 1) or 0
  end
  return text, mark[1] + shift, mark[1] + shift + #mark[3] - 1
end

local function on_request(h)
  local headers = h:headers()
  local known = {}                 -- what the log line is told of the request
  local client_request_id = headers:get("x-tg-client-request-id")
  if client_request_id then
    headers:remove("x-tg-client-request-id")
    -- Metadata takes plain text only.
    if not find(client_request_id, "[^!-~]") then known.client_request_id = client_request_id end
  end
  local path, query = headers:get(":path"), ""
  local mark = find(path, "?", 1, true)
  if mark then path, query = sub(path, 1, mark - 1), sub(path, mark) end
  known.endpoint = ENDPOINTS[headers:get(":method") .. " " .. path]
  if not known.endpoint then return refuse(h, known, "404", "not_found", "Unknown path or method.") end
  known.mode = mode_of(headers)
  if not known.mode then
    return refuse(h, known, "401", "invalid_api_key",
      "No valid API key was given. Send it as 'Authorization: Bearer ...' or 'x-api-key: ...'.")
  end

  if known.endpoint == "models" then
    headers:replace("x-tg-route", "models:")
    h:clearRouteCache()
    h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
    return
  end

  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return refuse(h, known, "400", "invalid_json", "A JSON body is required.") end
  local s = body:getBytes(0, length)
  local first, last = {}, {}
  local close, problem = scan_body(s, first, last)
  if not close then return refuse(h, known, "400", "invalid_json", problem) end
  if not first.model then return refuse(h, known, "400", "missing_model", "The field 'model' is required.", "model") end
  local model = model_name(s, first.model, last.model)
  if not model then
    return refuse(h, known, "400", "invalid_model", "The field 'model' is not a model's name.", "model")
  end
  known.model = model
  local numbers = {}
  for i = 1, #WHOLE_NUMBERS do
    local name = WHOLE_NUMBERS[i]
    numbers[name] = whole_number(s, first[name], last[name])
    if numbers[name] == false then
      return refuse(h, known, "400", "invalid_number", "This field must be a whole number of at least 1.", name)
    end
  end

  local service_tier = plain_word(s, first.service_tier, last.service_tier)
  if service_tier == false then
    return refuse(h, known, "400", "invalid_service_tier", "The field 'service_tier' is not a tier's name.", "service_tier")
  end
  -- Another word for a tier, with one provider; with both, nobody could say what it will be.
  local speed = plain_word(s, first.speed, last.speed)
  if speed == false or (speed and service_tier) then
    return refuse(h, known, "400", "invalid_service_tier", "The field 'speed' is not a tier's name, or stands beside one.", "speed")
  end
  if speed and speed ~= "standard" then service_tier = speed end
  known.service_tier = service_tier
  -- A list of other models to fall back on would be served and not paid for.
  if first.models and byte(s, first.models) ~= 110 then
    return refuse(h, known, "400", "invalid_model", "Name one model, in the field 'model'.", "models")
  end

  -- Where the answer is made can change its price, and the provider does not say by how much.
  if known.endpoint == "messages" and first.inference_geo and byte(s, first.inference_geo) ~= 110
    and sub(s, first.inference_geo, last.inference_geo) ~= '"global"' then
    return refuse(h, known, "400", "inference_geo_not_offered",
      "Answers are not offered from a place of your choice. Leave the field 'inference_geo' out.", "inference_geo")
  end

  known.stream = first.stream ~= nil and byte(s, first.stream) == 116
  local edit, hide_usage = nil, false
  if known.stream and known.endpoint == "chat" then
    edit, hide_usage, problem = ask_for_usage(s, close, first, last)
    if problem then return refuse(h, known, "400", "invalid_json", problem, "stream_options") end
  end

  headers = h:headers()            -- handles taken before body() are stale
  local is_test = known.mode == "test"
  headers:replace("x-tg-route", is_test and "test:" .. known.endpoint or known.endpoint .. ":" .. model)
  h:clearRouteCache()
  -- Metadata of the chosen route under this filter's name. The route stays chosen from here on: what it stands for is what
  -- ext_authz decides by and what is served.
  local prepared = h:metadata()
  known.offering = prepared:get("offering")
  local cluster = prepared:get("cluster")      -- only if attempt 1 is certain
  if is_test and not cluster then
    return refuse(h, known, "403", "test_mode_unavailable",
      "Test keys cannot be used here: this gateway has no simulator. Use a live key.")
  end
  local upstream_model = model
  if cluster then
    upstream_model = prepared:get("model") or model
    headers:replace(":path", prepared:get("path") .. query)
    headers:replace("x-tg-prepared", cluster)
  end

  local model_first, model_last = first.model, last.model
  if edit or upstream_model ~= model then
    local text
    text, model_first, model_last = apply_edits(s, edit, { model_first, model_last, '"' .. upstream_model .. '"' })
    length = body:setBytes(text)
    headers:replace("content-length", tostring(length))
  end

  local requested, requested_too = numbers.max_tokens, numbers.max_completion_tokens
  if requested_too and (not requested or requested_too > requested) then requested = requested_too end
  known.hide_usage = hide_usage
  known.body_bytes = length
  known.references = has_references(s)
  known.web_search = known.references and find(s, WEB_SEARCH, 1, true) ~= nil
  known.meters = asked_meters(s, known.endpoint, first, last)
  known.max_output_tokens = requested
  known.choices = numbers.n
  local metadata = h:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "request", known)
  metadata:set(NAMESPACE, "plan", model_first .. "," .. model_last)
end

------------------------------------------------------------------------------------------------------------ response

-- The raw texts of the usage object and of the service tier of the JSON object at i, each nil if it has none: at its top level or,
-- where nested is true, at the top level of its "message" (Anthropic's message_start). A "usage" anywhere deeper is the model's
-- own words, not the provider's. One pass, which ends where both are found.
local function usage_texts(s, i, nested)
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
      if key == "usage" and value_last - i < USAGE_BYTES_MAX then
        usage = sub(s, i, value_last)
      elseif nested and key == "message" then
        usage = usage_texts(s, i, false) or usage
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
local function event_usage(s, first, last)
  local data = first
  while sub(s, data, data + 4) ~= "data:" do
    local line_end = find(s, "\n", data, true) or find(s, "\r", data, true)
    if not line_end or line_end >= last then return nil end
    data = line_end + 1
  end
  return usage_texts(s, data + 5, true)
end

-- Reads the stream as it passes. A client that asked for no usage gets whole events only, less the one that carries
-- nothing but usage; any other client gets every byte as it comes.
--
-- Between chunks, `carry` is the beginning of an event whose end has not come yet; hidden from the client so far if
-- hide_usage, already sent otherwise. An event too long to keep is let through and not read (`oversized`).
local function on_stream(h, hide_usage)
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
          usage, tier = event_usage(s, position, last)
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
    if #carry > EVENT_BYTES_MAX then oversized = true end
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
    if not oversized and find(carry, '"usage"', 1, true) then capture(event_usage(carry, 1, #carry)) end
  end
end

-- A provider that refuses our credential tells the client about a key it never sent, sometimes quoting a part of it.
-- Known by the grant: a 401 or 403 to a request that was admitted is the provider's.
local function hide_credential_error(h)
  local text = '{"error":{"message":"The provider refused the credential of this gateway.","type":"server_error",'
    .. '"param":null,"code":"provider_credential_rejected"}}'
  local body = h:body(true)
  local headers = h:headers()
  headers:replace(":status", "502")
  headers:replace("content-type", "application/json")
  headers:replace("x-should-retry", "false")
  headers:replace("content-length", tostring(body:setBytes(text)))
end

local function on_response(h)
  local metadata = h:streamInfo():dynamicMetadata()
  local request = metadata:get(NAMESPACE)
  request = request and request.request
  if not request or not request.endpoint or request.endpoint == "models" then return end
  local headers = h:headers()
  local status = headers:get(":status")
  if byte(status) ~= 50 then       -- not 2xx
    if status == "401" or status == "403" then
      local grant = metadata:get(GRANT_NAMESPACE)
      if grant and not grant.error_code then hide_credential_error(h) end
    end
    return
  end
  local content_type = headers:get("content-type")
  if not content_type then return end
  content_type = lower(content_type)
  if find(content_type, "text/event-stream", 1, true) then return on_stream(h, request.hide_usage) end
  if not find(content_type, "json", 1, true) then return end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return end
  local s = body:getBytes(0, length)
  if not find(s, '"usage"', 1, true) then return end
  local usage, tier = usage_texts(s, 1, false)
  -- The handle from above is stale: body() may have waited.
  metadata = h:streamInfo():dynamicMetadata()
  if usage then metadata:set(NAMESPACE, "usage_first", usage) end
  if tier then metadata:set(NAMESPACE, "service_tier", tier) end
end

---------------------------------------------------------------------------------------------------------------- entry

function envoy_on_request(h)
  local ok, problem = pcall(on_request, h)
  if not ok then
    h:logErr("front request: " .. tostring(problem))
    refuse(h, {}, "503", "gateway_error", "The gateway could not read this request.")
  end
end

-- No pcall: the answer passes in any case, and Envoy counts the error (http.gateway.lua.errors).
envoy_on_response = on_response
