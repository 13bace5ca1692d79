-- The one Lua filter in front of everything (downstream, before ext_authz).
--
-- Request: finds the endpoint, scans the JSON body strictly, chooses the route by model, asks the provider for usage, and
-- prepares the body for the first provider of the chain. Response: captures the provider's raw usage object, counts
-- server-sent events, and hides the usage chunk from a client that did not ask for it.
--
-- Leaves behind: header x-tg-route (the routing key), header x-tg-prepared (the cluster the body is prepared for), and
-- dynamic metadata "tollgate": request, plan, usage_first, usage_last, sse_events (gateway_core/contract.py).
--
-- string.byte and plain string.find compile to machine code; Lua patterns do not, so none stands on the hot path. An error
-- anywhere in a request answers 503: this filter fails closed.

local find, sub, byte, format = string.find, string.sub, string.byte, string.format
local concat, tonumber, tostring, pcall, floor = table.concat, tonumber, tostring, pcall, math.floor

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"
local DEPTH_MAX = 512             -- nesting of JSON; real tool schemas stay below 40
local USAGE_BYTES_MAX = 16384     -- a usage object longer than this is not one
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

local function is_number_byte(c)
  return c ~= nil and ((c >= 48 and c <= 57) or c == 45 or c == 43 or c == 46 or c == 69 or c == 101)
end

local open_brackets = {}

-- A whole value begins at i with byte c; returns the index of its last byte, or nil if brackets or strings do not close.
local function skip_value(s, i, c)
  if c == QUOTE then return skip_string(s, i + 1) end
  if c == OPEN_BRACE or c == OPEN_BRACKET then
    local depth = 1
    open_brackets[1] = c
    i = i + 1
    while true do
      local x = byte(s, i)
      if x == nil then return nil end
      if x == QUOTE then
        i = skip_string(s, i + 1)
        if not i then return nil end
      elseif x == OPEN_BRACE or x == OPEN_BRACKET then
        depth = depth + 1
        if depth > DEPTH_MAX then return nil end
        open_brackets[depth] = x
      elseif x == CLOSE_BRACE or x == CLOSE_BRACKET then
        if open_brackets[depth] ~= x - 2 then return nil end
        depth = depth - 1
        if depth == 0 then return i end
      end
      i = i + 1
    end
  end
  if c == 116 then return sub(s, i, i + 3) == "true" and i + 3 or nil end
  if c == 102 then return sub(s, i, i + 4) == "false" and i + 4 or nil end
  if c == 110 then return sub(s, i, i + 3) == "null" and i + 3 or nil end
  local first = i
  while is_number_byte(c) do
    i = i + 1
    c = byte(s, i)
  end
  return i > first and i - 1 or nil
end

-- Walks the object that begins at i. first[key] and last[key] become the span of the value of each wanted key.
-- Returns the index of the closing brace, or nil and what is wrong. A key that is repeated or escaped is refused: another
-- parser might read a different value than the one we authorise and charge.
local function scan_object(s, i, wanted, first, last)
  local c
  i, c = skip_space(s, i)
  if c ~= OPEN_BRACE then return nil, "The body must be a JSON object." end
  local seen = {}
  i, c = skip_space(s, i + 1)
  if c == CLOSE_BRACE then return i end
  while true do
    if c ~= QUOTE then return nil, NOT_JSON end
    local close = skip_string(s, i + 1)
    if not close then return nil, NOT_JSON end
    local key = sub(s, i + 1, close - 1)
    if find(key, "\\", 1, true) then return nil, "Keys with escape sequences are not accepted." end
    if seen[key] then return nil, "The same key appears twice." end
    seen[key] = true
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

local function refuse(h, status, code, message, param)
  h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", { error_code = code })
  h:respond(
    { [":status"] = status, ["content-type"] = "application/json" },
    format('{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
      message, status == "503" and "server_error" or "invalid_request_error", param and '"' .. param .. '"' or "null", code))
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

-- A whole number >= 0 at the span, or nil: what it is not, the provider will say.
local function whole_number(s, first, last)
  local value = first and tonumber(sub(s, first, last))
  if not value or value < 0 or value > 1e9 or value ~= floor(value) then return nil end
  return value
end

-- Returns a list of edits {first, last, text} that make the provider send usage at the end of a chat stream, and whether
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

-- Applies one or two edits of disjoint spans; returns the new text and the span where the edit `mark` stands now.
local function apply(s, edit, mark)
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
  local client_request_id = headers:get("x-tg-client-request-id")
  local path = headers:get(":path")
  local query = find(path, "?", 1, true)
  if query then path = sub(path, 1, query - 1) end
  local endpoint = ENDPOINTS[headers:get(":method") .. " " .. path]
  if not endpoint then return refuse(h, "404", "not_found", "Unknown path or method.") end
  if client_request_id then
    headers:remove("x-tg-client-request-id")
    if find(client_request_id, "[^!-~]") then client_request_id = nil end   -- metadata takes plain text only
  end

  if endpoint == "models" then
    headers:replace("x-tg-route", "models:")
    h:clearRouteCache()
    h:streamInfo():dynamicMetadata():set(NAMESPACE, "request",
      { endpoint = endpoint, client_request_id = client_request_id })
    return
  end

  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return refuse(h, "400", "invalid_json", "A JSON body is required.") end
  local s = body:getBytes(0, length)
  local first, last = {}, {}
  local close, problem = scan_body(s, first, last)
  if not close then return refuse(h, "400", "invalid_json", problem) end
  if not first.model then return refuse(h, "400", "missing_model", "The field 'model' is required.", "model") end
  local model = model_name(s, first.model, last.model)
  if not model then return refuse(h, "400", "invalid_model", "The field 'model' is not a model's name.", "model") end

  local streaming = first.stream ~= nil and byte(s, first.stream) == 116
  local edit, hide_usage = nil, false
  if streaming and endpoint == "chat" then
    edit, hide_usage, problem = ask_for_usage(s, close, first, last)
    if problem then return refuse(h, "400", "invalid_json", problem, "stream_options") end
  end

  headers = h:headers()            -- handles taken before body() are stale
  headers:replace("x-tg-route", endpoint .. ":" .. model)
  h:clearRouteCache()
  local prepared = h:metadata()    -- metadata of the chosen route under this filter's name; empty unless attempt 1 is certain
  local cluster = prepared:get("cluster")
  local upstream_model = model
  if cluster then
    upstream_model = prepared:get("model")
    headers:replace(":path", prepared:get("path"))
    headers:replace("x-tg-prepared", cluster)
  end

  local model_first, model_last = first.model, last.model
  if edit or upstream_model ~= model then
    local text
    text, model_first, model_last = apply(s, edit, { model_first, model_last, '"' .. upstream_model .. '"' })
    length = body:setBytes(text)
    headers:replace("content-length", tostring(length))
  end

  local requested = whole_number(s, first.max_tokens, last.max_tokens)
  local requested_too = whole_number(s, first.max_completion_tokens, last.max_completion_tokens)
  if requested_too and (not requested or requested_too > requested) then requested = requested_too end
  local metadata = h:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "request", {
    endpoint = endpoint,
    model = model,
    stream = streaming,
    hide_usage = hide_usage,
    body_bytes = length,
    max_output_tokens = requested,
    choices = whole_number(s, first.n, last.n),
    client_request_id = client_request_id,
  })
  metadata:set(NAMESPACE, "plan", model_first .. "," .. model_last .. "," .. length)
end

------------------------------------------------------------------------------------------------------------ response

-- The raw text of the usage object of the JSON object at i: at its top level or, where nested is true, at the top level of
-- its "message" (Anthropic's message_start). A "usage" anywhere deeper is the model's own words, not the provider's.
local function usage_text(s, i, nested)
  local c
  i, c = skip_space(s, i)
  if c ~= OPEN_BRACE then return nil end
  i, c = skip_space(s, i + 1)
  while c == QUOTE do
    local close = skip_string(s, i + 1)
    if not close then return nil end
    local key = close - i < 10 and sub(s, i + 1, close - 1)
    i, c = skip_space(s, close + 1)
    if c ~= COLON then return nil end
    i, c = skip_space(s, i + 1)
    local value_last = skip_value(s, i, c)
    if not value_last then return nil end
    if c == OPEN_BRACE then
      if key == "usage" and value_last - i < USAGE_BYTES_MAX then return sub(s, i, value_last) end
      if nested and key == "message" then
        local found = usage_text(s, i, false)
        if found then return found end
      end
    end
    i, c = skip_space(s, value_last + 1)
    if c ~= COMMA then return nil end
    i, c = skip_space(s, i + 1)
  end
end

-- Where the event that begins at i ends (index of the last byte of the blank line), or nil while it is incomplete.
local function event_last(s, i, has_cr)
  local lf = find(s, "\n\n", i, true)
  local crlf = has_cr and find(s, "\r\n\r\n", i, true)
  if crlf and (not lf or crlf < lf) then return crlf + 3 end
  return lf and lf + 1
end

-- Reads the stream as it passes. A client that asked for no usage gets whole events only, less the one that carries
-- nothing but usage; any other client gets every byte as it comes.
local function on_stream(h, hide_usage)
  local carry, events, captured = "", 0, false
  local oversized = false          -- inside an event too long to keep: its bytes pass until it ends
  local chunk, forwarded
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
      if mention and mention < last and not oversized then
        local data = find(s, "data:", position, true)
        usage = data and data < last and usage_text(s, data + 5, true)
        if usage then
          h:streamInfo():dynamicMetadata():set(NAMESPACE, captured and "usage_last" or "usage_first", usage)
          captured = true
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
  if hide_usage and carry ~= "" and chunk then chunk:setBytes(forwarded .. carry) end   -- a last event without its blank line
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
  if status ~= "200" then
    if status == "401" or status == "403" then
      local grant = metadata:get(GRANT_NAMESPACE)
      if grant and not grant.error_code then hide_credential_error(h) end
    end
    return
  end
  local content_type = headers:get("content-type")
  if not content_type then return end
  if find(content_type, "text/event-stream", 1, true) then return on_stream(h, request.hide_usage) end
  if not find(content_type, "json", 1, true) then return end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then return end
  local s = body:getBytes(0, length)
  local usage = find(s, '"usage"', 1, true) and usage_text(s, 1, false)
  -- The handle from above is stale: body() may have waited.
  if usage then h:streamInfo():dynamicMetadata():set(NAMESPACE, "usage_first", usage) end
end

---------------------------------------------------------------------------------------------------------------- entry

function envoy_on_request(h)
  local ok, problem = pcall(on_request, h)
  if not ok then
    h:logErr("front request: " .. tostring(problem))
    refuse(h, "503", "gateway_error", "The gateway could not read this request.")
  end
end

-- No pcall: the answer passes in any case, and Envoy counts the error (lua.errors), which is what the alert watches.
envoy_on_response = on_response
