-- Reads the body of a request, JSON or a form, strictly: what two readers could take in two ways is refused.

local json, forms, errors, paths, tags = require("json"), require("forms"), require("errors"), require("paths"), require("tags")

local find, sub, byte, match = string.find, string.sub, string.byte, string.match
local tonumber = tonumber
local skip_space, scan_object, whole_number = json.skip_space, json.scan_object, json.whole_number
local refuse, model_name = errors.refuse, paths.model_name
local QUOTE, BACKSLASH = json.QUOTE, json.BACKSLASH
local QUOTES_MAX = 2 ^ 20        -- in a body; 10,000 messages have some 80,000

-- What is wrong with a field, whatever it stands in.
local NO_MODEL, NO_MODEL_NAME = "The field 'model' is required.", "The field 'model' is not a model's name."
local MODELS_NAMED = "Name one model, in the field 'model'."
local NO_NUMBER = "This field must be a whole number of at least 1."
local NO_TIER = "The field 'service_tier' is not a tier's name."

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

-- Reads a body of JSON, and what everybody needs of it into `known`. Returns the spans of the values, the numbers, and where the object
-- closes; nothing if it is refused.
local function read_json(h, known, kind, s)
  local first, last = {}, {}
  local close, problem = scan_body(s, kind.fields, first, last)
  if not close then return refuse(h, known, "400", "invalid_json", problem) end
  if has_hidden_word(s) then
    return refuse(h, known, "400", "invalid_json", "Letters, digits and underscores must not be written as escapes.")
  end
  if kind.has_no_model then return { first = first, last = last, numbers = {} } end
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
  tags.take_fields(known, s, first, last)
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
  known.files, known.file_bytes = count, file_bytes
  if kind.has_no_model then return { first = first, last = last, numbers = {} } end
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
  return { first = first, last = last, numbers = numbers }
end

return { json_of = read_json, form_of = read_form }
