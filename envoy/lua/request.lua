-- The request side of front.lua: finds the endpoint, turns away what brings no key, checks the body, which is JSON or a form, chooses
-- the route by model (for a test key: the endpoint's test route, whatever the model), asks the provider for usage, and prepares the
-- body for the first provider of the chain. What is special about single endpoints stands in bodies.lua.

local json, edits_of_text, errors, bodies = require("json"), require("edits"), require("errors"), require("bodies")
local leases = require("leases")
local forms = require("forms")

local find, sub, byte, lower, match = string.find, string.sub, string.byte, string.lower, string.match
local concat, tonumber, tostring, floor = table.concat, tonumber, tostring, math.floor
local skip_space, scan_object, has_word = json.skip_space, json.scan_object, json.has_word
local apply, moved, path_for = edits_of_text.apply, edits_of_text.moved, edits_of_text.path_for

local NAMESPACE = "tollgate"
local QUOTE, BACKSLASH, COMMA, OPEN_BRACE, CLOSE_BRACE = json.QUOTE, json.BACKSLASH, json.COMMA, json.OPEN_BRACE, json.CLOSE_BRACE
-- By the beginning of a key; gateway_core/api_keys.py.
local MODES = { ["sk-tg-live-"] = "live", ["sk-tg-test-"] = "test" }
local KEY_LENGTH, KEY_PREFIX_LENGTH = 60, 11
local QUOTES_MAX = 2 ^ 20        -- in a body; 10,000 messages have some 80,000

-- Paths and methods we serve; gateway_core/endpoints.py holds the same table.
local ENDPOINTS = {
  ["POST /v1/chat/completions"] = "chat",
  ["POST /v1/messages"] = "messages",
  ["POST /v1/messages/count_tokens"] = "count_tokens",
  ["POST /v1/responses"] = "responses",
  ["POST /v1/completions"] = "completions",
  ["POST /v1/embeddings"] = "embeddings",
  ["POST /v1/moderations"] = "moderations",
  ["POST /v1/rerank"] = "rerank",
  ["POST /v1/images/generations"] = "images",
  ["POST /v1/images/edits"] = "image_edits",
  ["POST /v1/audio/speech"] = "speech",
  ["POST /v1/audio/transcriptions"] = "transcriptions",
  ["POST /v1/audio/translations"] = "translations",
  ["POST /v1beta/models/{model}:generateContent"] = "generate",
  ["POST /v1beta/models/{model}:streamGenerateContent"] = "stream_generate",
  ["GET /v1/models"] = "models",
  ["GET /v1/models/{model}"] = "model",
}
-- What is wrong with a field, whatever it stands in.
local NO_MODEL, NO_MODEL_NAME = "The field 'model' is required.", "The field 'model' is not a model's name."
local MODELS_NAMED = "Name one model, in the field 'model'."
local NO_NUMBER = "This field must be a whole number of at least 1."
local NO_TIER = "The field 'service_tier' is not a tier's name."
local ONE_MODEL, OF_A_MODEL = "GET /v1/models/{model}", "/v1/models/"
local IN_PATH, FOR_A_MODEL = "^/v1beta/models/(.+):(%a+)$", "POST /v1beta/models/{model}:"

-- Words that bring in what the body's length does not tell: images, files and documents by reference, pages that the provider
-- finds or fetches.
local WEB_SEARCH = '"web_search'
local SEARCH_TOOL = '"web_search_20'   -- the provider's own search, as Anthropic names it with a date
local REFERENCES = {
  '_url"', '"url"', '"file_id"', '"file_data"', '"document"', '"image"', '"web_',
  '"mcp_servers"', '"mcp_toolset"', '"container"', '"code_execution', '"skills"', '"input_audio"',
}
local STREAM_OPTIONS_FIELDS = { include_usage = true }
local OUR_OPTIONS = '"stream_options":{"include_usage":true}'
local THINKING_FIELDS = { budget_tokens = true }

-- Whether there are so many quotation marks that it would take long to look for words: each of those begins with one.
local function has_too_many_quotes(s)
  local i = 0
  for _ = 0, QUOTES_MAX do
    i = find(s, '"', i + 1, true)
    if not i then return false end
  end
  return true
end

-- The body as a whole: one object and nothing behind it. Returns the index of its closing brace, or nil and what is wrong.
local function scan_body(s, fields, first, last)
  if has_too_many_quotes(s) then return nil, "The body has more than 1,048,576 quotation marks." end
  local close, problem = scan_object(s, 1, fields, first, last)
  if not close then return nil, problem end
  local _, rest = skip_space(s, close + 1)
  if rest ~= nil then return nil, "There is something behind the JSON object." end
  return close
end

-- Answers with an error in the form of the endpoint. `known` is what the log line is told of the request besides.
local function refuse(h, known, status, code, message, param)
  known.error_code = code
  h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
  local headers = h:headers()
  h:respond(
    { [":status"] = status, ["content-type"] = "application/json" },
    errors.as_json(errors.form_of(known.endpoint, headers:get(":path")), headers:get("x-request-id"),
      status, code, message, param))
end

-- The mode of the key that a request brings, and the key; nil if it brings nothing of a key's form. Whether it is a key, ext_authz
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
  return key and #key == KEY_LENGTH and MODES[sub(key, 1, KEY_PREFIX_LENGTH)] or nil, key
end

-- A model name is what routing and prices hang on, so only plain characters: letters, digits, - . / : _ @
local function model_name(s, first, last)
  if last < first or last - first > 198 then return nil end
  for i = first, last do
    local c = byte(s, i)
    local plain = (c >= 97 and c <= 122) or (c >= 65 and c <= 90) or (c >= 45 and c <= 58) or c == 95 or c == 64
    if not plain then return nil end
  end
  return sub(s, first, last)
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

-- The meters that the provider will count whatever the model makes of the request, by their names in gateway_core/usage.py, with
-- commas between; nil if there are none.
local function asked_meters(s, endpoint, first, last)
  local meters = {}
  if endpoint == "messages" then
    if first.tools and has_word(s, SEARCH_TOOL, first.tools, last.tools) then meters[1] = "web_search" end
  else
    if has_word(s, '"input_audio"', 1, #s) then meters[1] = "audio_input" end
    local from, to = first.modalities, last.modalities
    if from and byte(s, from) ~= 110 then
      if has_word(s, '"audio"', from, to) then meters[#meters + 1] = "audio_output" end
      if has_word(s, '"image"', from, to) then meters[#meters + 1] = "image_output" end
    end
  end
  return meters[1] and concat(meters, ",") or nil
end

-- Whether a letter, a digit or an underscore is written as an escape anywhere. No encoder does that, and the words that we look for
-- could hide behind it.
local function has_hidden_word(s)
  local i = find(s, "\\u00", 1, true)
  while i do
    local high = byte(s, i + 4)
    if high and high >= 51 and high <= 55 then       -- 3 to 7; most escapes are others, and there may be millions
      local k = i - 1
      while byte(s, k) == BACKSLASH do k = k - 1 end
      local code = (i - k) % 2 == 1 and tonumber(sub(s, i + 4, i + 5), 16)       -- not itself behind a backslash
      if code and ((code >= 48 and code <= 57) or (code >= 65 and code <= 90) or code == 95 or (code >= 97 and code <= 122)) then
        return true
      end
    end
    i = find(s, "\\u00", i + 4, true)
  end
  return false
end

-- Whether the body names something that is not in it.
local function has_references(s)
  for i = 1, #REFERENCES do
    if find(s, REFERENCES[i], 1, true) then return true end
  end
  return false
end

-- The span of a member of the body whose value is at a span, with a comma: that in front of it, or behind the first member, as is returned
-- besides. The model is another member.
local function member_span(s, value_first, value_last)
  local first = value_first - 1
  while byte(s, first) ~= QUOTE do first = first - 1 end       -- a colon and spaces
  repeat first = first - 1 until byte(s, first) == QUOTE
  local before = first - 1
  while byte(s, before) ~= COMMA and byte(s, before) ~= OPEN_BRACE do before = before - 1 end
  if byte(s, before) == COMMA then return before, value_last, false end
  return first, (skip_space(s, value_last + 1)), true
end

-- Returns an edit {first, last, text} that makes the provider send usage at the end of a chat stream, whether the client has to be
-- spared the extra chunk, and whether all stream options are in the edit, so that it can be taken back. Everything that the client put
-- into stream_options stays; null or nothing in them is as good as none, and makes way for ours.
local function ask_for_usage(s, close, first, last)
  local options = first.stream_options
  if not options then return { close, close - 1, "," .. OUR_OPTIONS }, true, true end
  local inner_first, inner_last = {}, {}
  local is_empty = byte(s, options) == 110
  if not is_empty then
    local inner_close, problem = scan_object(s, options, STREAM_OPTIONS_FIELDS, inner_first, inner_last)
    if not inner_close then return nil, false, false, problem end
    local _, c = skip_space(s, options + 1)
    is_empty = c == CLOSE_BRACE
  end
  if is_empty then
    local from, to, is_first = member_span(s, options, last.stream_options)
    return { from, to, is_first and OUR_OPTIONS .. "," or "," .. OUR_OPTIONS }, true, true
  end
  local flag = inner_first.include_usage
  if not flag then return { options + 1, options, '"include_usage":true,' }, true, false end
  if byte(s, flag) == 116 then return nil, false, false end
  return { flag, inner_last.include_usage, "true" }, true, false
end

-- Returns an edit that has the provider store nothing of a response; none where the client says so itself.
local function store_nothing(s, close, first, last)
  local store = first.store
  if not store then return { close, close - 1, ',"store":false' } end
  return byte(s, store) == 110 and { store, last.store, "false" } or nil
end

-- The fewest tokens that a provider takes for a bound beside what it is told to think, or nil: it has to be more than that.
local function least_output_tokens(s, first, last)
  if not first.thinking then return nil end
  local inner_first, inner_last = {}, {}
  scan_object(s, first.thinking, THINKING_FIELDS, inner_first, inner_last)
  local budget = whole_number(s, inner_first.budget_tokens, inner_last.budget_tokens)
  return budget and budget + 1 or nil
end

-- What upstream.lua needs to write over the model (with `=` where it is bare text) and the bounds on the output, and to take back the stream options, as `plan` in the
-- metadata. `mark` is the edit of the model (none where that stands in the path), `options` the one that put the stream options in, if one has. A null is as good as a
-- field that is not there, but for a provider that knows the older bound only.
local function plan_of(endpoint, kind, numbers, first, last, mark, options, edits)
  if not mark then return "" end
  local from = moved(mark[1], edits)
  local parts = { (kind.files and "=" or "") .. from .. "," .. from + #mark[3] - 1 }
  local function add(name)
    parts[#parts + 1] = moved(first[name], edits) .. "," .. moved(last[name], edits)
  end
  for i = 1, #kind.bounds do
    if numbers[kind.bounds[i]] then add(kind.bounds[i]) end
  end
  local name = kind.bound
  if name and not parts[2] then
    if first[name] then add(name) else parts[2] = "+" .. name end
  end
  if endpoint == "chat" and first.max_tokens and not numbers.max_tokens then add("max_tokens") end
  if options then
    local at = moved(options[1], edits)
    parts[#parts + 1] = "-" .. at .. "," .. at + #options[3] - 1
  end
  return concat(parts, " ")
end

-- Reads a body of JSON, and what everybody needs of it into `known`. Returns the spans of the values, the numbers, and where the object
-- closes; nothing if it is refused.
local function read_json(h, known, kind, s)
  local first, last = {}, {}
  local close, problem = scan_body(s, kind.fields, first, last)
  if not close then return refuse(h, known, "400", "invalid_json", problem) end
  if has_hidden_word(s) then
    return refuse(h, known, "400", "invalid_json", "Letters, digits and underscores must not be written as escapes.")
  end
  if known.model then
    -- It stands in the path, and there only.
    if first.model then return refuse(h, known, "400", "invalid_model", "The model is named in the path.", "model") end
  else
    if not first.model then return refuse(h, known, "400", "missing_model", NO_MODEL, "model") end
    known.model = byte(s, first.model) == QUOTE and model_name(s, first.model + 1, last.model - 1) or nil
    if not known.model then return refuse(h, known, "400", "invalid_model", NO_MODEL_NAME, "model") end
  end
  local numbers = {}
  for i = 1, #kind.numbers do
    local name = kind.numbers[i]
    numbers[name] = whole_number(s, first[name], last[name])
    if numbers[name] == false then
      return refuse(h, known, "400", "invalid_number", NO_NUMBER, name)
    end
  end

  local service_tier = plain_word(s, first.service_tier, last.service_tier)
  if service_tier == false then
    return refuse(h, known, "400", "invalid_service_tier", NO_TIER, "service_tier")
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
    return refuse(h, known, "400", "invalid_model", MODELS_NAMED, "models")
  end

  -- Where the answer is made can change its price, and the provider does not say by how much.
  if known.endpoint == "messages" and first.inference_geo and byte(s, first.inference_geo) ~= 110
    and sub(s, first.inference_geo, last.inference_geo) ~= '"global"' then
    return refuse(h, known, "400", "inference_geo_not_offered",
      "Answers are not offered from a place of your choice. Leave the field 'inference_geo' out.", "inference_geo")
  end

  -- Of a word or a number, some providers make a stream and others none.
  local stream = first.stream and byte(s, first.stream)
  if stream and stream ~= 116 and stream ~= 102 and stream ~= 110 then
    return refuse(h, known, "400", "invalid_stream", "The field 'stream' is true, false or null.", "stream")
  end
  known.stream = stream == 116
  known.choices = numbers.n
  return { first = first, last = last, numbers = numbers, close = close }
end

-- The same of a form, whose values are bare text. Its type is what the client says, and the provider is told nothing else.
local function read_form(h, known, kind, s)
  local headers = h:headers()
  local content_type = headers:get("x-tg-content-type")
  local boundary = forms.boundary_of(content_type)
  if not boundary then
    return refuse(h, known, "415", "unsupported_media_type", "A form is required: multipart/form-data with a plain boundary.")
  end
  headers:replace("content-type", content_type)
  local first, last = {}, {}
  local count, file_bytes = forms.scan(s, boundary, kind.fields, kind.files, first, last)
  if not count then return refuse(h, known, "400", "invalid_form", file_bytes) end
  if not first.model then return refuse(h, known, "400", "missing_model", NO_MODEL, "model") end
  known.model = model_name(s, first.model, last.model)
  if not known.model then return refuse(h, known, "400", "invalid_model", NO_MODEL_NAME, "model") end
  if first.models then return refuse(h, known, "400", "invalid_model", MODELS_NAMED, "models") end
  local numbers = {}
  for i = 1, #kind.numbers do
    local name = kind.numbers[i]
    local text = first[name] and sub(s, first[name], last[name])
    numbers[name] = text and match(text, "^[1-9]%d?%d?%d?$") and tonumber(text)
    if text and not numbers[name] then return refuse(h, known, "400", "invalid_number", NO_NUMBER, name) end
  end
  if first.service_tier then
    known.service_tier = match(sub(s, first.service_tier, last.service_tier), "^[a-z0-9_]+$")
    if not known.service_tier then return refuse(h, known, "400", "invalid_service_tier", NO_TIER, "service_tier") end
  end
  local stream = first.stream and sub(s, first.stream, last.stream)
  if stream and stream ~= "true" and stream ~= "false" then
    return refuse(h, known, "400", "invalid_input", "This field is true or false.", "stream")
  end
  known.stream = stream == "true"
  known.files, known.file_bytes = count, file_bytes
  return { first = first, last = last, numbers = numbers }
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
  local path = headers:get(":path")
  -- What a client adds there is for nobody: a provider may take it for a credential or a wish.
  local asks, query = find(path, "?", 1, true), ""
  if asks then
    path, query = sub(path, 1, asks - 1), sub(path, asks)
    headers:replace(":path", path)
  end
  local method = headers:get(":method")
  known.endpoint = ENDPOINTS[method .. " " .. path]
  if not known.endpoint and method == "GET" and #path > #OF_A_MODEL and sub(path, 1, #OF_A_MODEL) == OF_A_MODEL then
    known.endpoint = ENDPOINTS[ONE_MODEL]
  end
  if not known.endpoint and method == "POST" then
    local name, verb = match(path, IN_PATH)
    known.model = name and model_name(name, 1, #name)
    known.endpoint = known.model and ENDPOINTS[FOR_A_MODEL .. verb]
    if known.endpoint and not headers:get("authorization") then
      -- Google's clients bring the key in other places. From here on it is where admission looks.
      local key = headers:get("x-goog-api-key") or match(query, "[?&]key=([^&]*)")
      if key then headers:replace("x-api-key", key) end
    end
  end
  if not known.endpoint then return refuse(h, known, "404", "not_found", "Unknown path or method.") end
  local credential
  known.mode, credential = mode_of(headers)
  if not known.mode then
    return refuse(h, known, "401", "invalid_api_key",
      "No valid API key was given. Send it as 'Authorization: Bearer ...' or 'x-api-key: ...'.")
  end

  if known.endpoint == "models" or known.endpoint == "model" then
    headers:replace("x-tg-route", "models:")
    h:clearRouteCache()
    h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
    return
  end

  -- A body that is packed could not be read.
  local encoding = headers:get("content-encoding")
  if encoding and lower(encoding) ~= "identity" then
    return refuse(h, known, "415", "unsupported_media_type", "Send the body as it is, without a content encoding.")
  end
  local kind = bodies[known.endpoint]
  if known.endpoint == "stream_generate" and not find(query .. "&", "[?&]alt=sse&") then
    return refuse(h, known, "400", "stream_required", "Streams are offered as events only: ask with ?alt=sse.")
  end
  if kind.is_anthropic then known.request_id = headers:get("x-request-id") end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then
    return refuse(h, known, "400", kind.files and "invalid_form" or "invalid_json", "A body is required: JSON, or a form where that is asked.")
  end
  local s = body:getBytes(0, length)
  local read
  if kind.files then
    read = read_form(h, known, kind, s)
  else
    read = read_json(h, known, kind, s)
  end
  if not read then return end
  local model, first, last, numbers = known.model, read.first, read.last, read.numbers
  if kind.look then
    local code, message, param = kind.look(known, numbers, s, first, last)
    if code then return refuse(h, known, "400", code, message, param) end
  end
  local edit, hide_usage, is_ours = nil, false, false
  if known.stream and kind.tells_usage_if_asked then
    local problem
    edit, hide_usage, is_ours, problem = ask_for_usage(s, read.close, first, last)
    if problem then return refuse(h, known, "400", "invalid_json", problem, "stream_options") end
  elseif kind.is_kept_unless_told then
    edit = store_nothing(s, read.close, first, last)
  end

  headers = h:headers()            -- handles taken before body() are stale
  local is_test = known.mode == "test"
  local route = is_test and "test:" .. known.endpoint or known.endpoint .. ":" .. model
  headers:replace("x-tg-route", route)
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
    headers:replace(":path", path_for(prepared:get("path"), upstream_model))
    headers:replace("x-tg-prepared", cluster)
  end

  local mark = first.model and { first.model, last.model, kind.files and upstream_model or '"' .. upstream_model .. '"' }
  local edits = { mark, edit }
  if edit or (mark and upstream_model ~= model) then
    length = body:setBytes(apply(s, edits))
    headers:replace("content-length", tostring(length))
  end

  local requested
  for i = 1, #kind.bounds do
    local bound = numbers[kind.bounds[i]]
    if bound and (not requested or bound > requested) then requested = bound end
  end
  known.hide_usage = hide_usage
  known.body_bytes = length
  known.references = not kind.files and (known.references or has_references(s))
  known.web_search = known.references and find(s, WEB_SEARCH, 1, true) ~= nil
  known.meters = known.meters or kind.bound and asked_meters(s, known.endpoint, first, last) or nil
  known.max_output_tokens = known.max_output_tokens or requested
  known.least_output_tokens = known.endpoint == "messages" and least_output_tokens(s, first, last) or nil
  local metadata = h:streamInfo():dynamicMetadata()
  -- What admission looks at is whole: either there is a lease for it, or ext_authz is asked.
  local shape = leases.shape_of(credential, is_test and route .. ":" .. model or route, known)
  local grant = leases.spend(shape, known)
  if grant then
    metadata:set(NAMESPACE, "lease", grant)
  else
    local number
    number, known.lease_wanted, known.unspent = leases.ask(shape, known)
    headers:replace("x-tg-asked", number)
  end
  metadata:set(NAMESPACE, "request", known)
  metadata:set(NAMESPACE, "plan",
    plan_of(known.endpoint, kind, numbers, first, last, mark, is_ours and edit or nil, edits))
end

return { on_request = on_request, refuse = refuse }
