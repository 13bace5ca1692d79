-- What request.lua has to know of the body of each endpoint. By the endpoint's name, a table:
--   fields                 the top-level fields that somebody here needs
--   numbers                of those, the ones that must be null or a whole number >= 1: a provider might be more generous in reading
--                          them than we are
--   bounds, bound          those that bound the output, and the one that does where the client bounds it by nothing; nil: none does
--   tells_usage_if_asked   whether a stream tells its usage only if stream_options ask for it
--   is_anthropic           whether its errors are Anthropic's
--   look(known, numbers, s, first, last)
--                          what is read of it besides, into `known`; returns code, message and field of a refusal, or nothing

local json = require("json")

local sub, byte, max = string.sub, string.byte, math.max
local scan_object, scan_array = json.scan_object, json.scan_array
local QUOTE, BACKSLASH, OPEN_BRACE, OPEN_BRACKET = json.QUOTE, json.BACKSLASH, json.OPEN_BRACE, json.OPEN_BRACKET
local NULL = 110

local PICTURES_MAX = 10
-- What the last event of a stream of a response says again; response.lua reads an event of four times this.
local ECHO_BYTES_MAX = 1048576
-- Tools of /v1/responses that cost the tokens they bring and nothing else. "mcp" brings what nobody here has seen.
local TOOLS = {
  ['"function"'] = true, ['"custom"'] = true, ['"local_shell"'] = true, ['"apply_patch"'] = true, ['"computer"'] = true,
  ['"computer_use_preview"'] = true, ['"mcp"'] = true,
}
local STORED = { "previous_response_id", "conversation", "prompt" }
local ITEM_FIELDS = { type = true, role = true }
local TOOL_FIELDS = { type = true }

local function fields(...)
  local found = { model = true, stream = true, service_tier = true, models = true }
  for i = 1, select("#", ...) do found[select(i, ...)] = true end
  return found
end

local function is_given(s, at) return at ~= nil and byte(s, at) ~= NULL end

-- How many inputs stand at a span: those of a list, but a list of numbers is one text as tokens.
local function inputs_at(s, at)
  if not at or byte(s, at) ~= OPEN_BRACKET then return 1 end
  local count, only_numbers = 0, true
  scan_array(s, at, function(_, _, c)
    count = count + 1
    if c == QUOTE or c == OPEN_BRACE or c == OPEN_BRACKET then only_numbers = false end
  end)
  return only_numbers and 1 or count
end

-- How many characters the string at a span has: bytes, less those that continue a character of UTF-8 or an escape.
local function characters_at(s, first, last)
  local count, i, after_high = 0, first + 1, false
  while i < last do
    local c = byte(s, i)
    local is_high = false
    if c == BACKSLASH then
      if byte(s, i + 1) == 117 then
        local code = tonumber(sub(s, i + 2, i + 5), 16) or 0
        is_high = code >= 0xD800 and code < 0xDC00
        -- The second half of a pair is no character; alone, it is one that somebody has to say.
        if not (after_high and code >= 0xDC00 and code < 0xE000) then count = count + 1 end
        i = i + 6
      else
        count = count + 1
        i = i + 2
      end
    else
      if c < 128 or c >= 192 then count = count + 1 end
      i = i + 1
    end
    after_high = is_high
  end
  return count
end

-- Whether an item of the input of a response names one that the provider has stored, or cannot be read.
local function names_stored_item(s, at)
  if not at or byte(s, at) ~= OPEN_BRACKET then return false end
  local found = false
  scan_array(s, at, function(first, _, c)
    if c ~= OPEN_BRACE then return end
    local item, item_last = {}, {}
    if not scan_object(s, first, ITEM_FIELDS, item, item_last) then
      found = true
    elseif is_given(s, item.type) then
      found = found or sub(s, item.type, item_last.type) == '"item_reference"'
    else
      found = found or not is_given(s, item.role)
    end
  end)
  return found
end

-- Whether a tool is not one of TOOLS; sets `known.references` if one reads what is not in the body.
local function has_other_tool(known, s, at)
  if not is_given(s, at) then return false end
  if byte(s, at) ~= OPEN_BRACKET then return true end
  local found = false
  scan_array(s, at, function(first, _, c)
    local tool, tool_last = {}, {}
    local kind = c == OPEN_BRACE and scan_object(s, first, TOOL_FIELDS, tool, tool_last) and tool.type
      and sub(s, tool.type, tool_last.type)
    if not TOOLS[kind] then found = true end
    if kind == '"mcp"' then known.references = true end
  end)
  return found
end

local function look_at_response(known, _, s, first, last)
  for i = 1, #STORED do
    if is_given(s, first[STORED[i]]) then
      return "stored_state_not_offered", "What a provider has stored cannot be kept to its owner here. Send the whole input.", STORED[i]
    end
  end
  if first.background and byte(s, first.background) ~= NULL and byte(s, first.background) ~= 102 then
    return "stored_state_not_offered", "An answer that is fetched later cannot be kept to its owner here. Wait for it.", "background"
  end
  if names_stored_item(s, first.input) then
    return "stored_state_not_offered", "An item of the input is not told whole. Send it with its type and content.", "input"
  end
  if has_other_tool(known, s, first.tools) then
    return "tool_not_offered", "There is a tool that is not offered on this endpoint.", "tools"
  end
  local input_bytes = first.input and last.input - first.input or 0
  if known.stream and #s - input_bytes > ECHO_BYTES_MAX then
    return "invalid_input", "Instructions and tools of a stream have 1 MiB together at most.", "instructions"
  end
end

local function look_at_completion(known, numbers, s, first)
  known.units = inputs_at(s, first.prompt)
  known.choices = max(numbers.n or 1, numbers.best_of or 1) * max(1, known.units)
end

local function look_at_pictures(known, numbers)
  known.units = numbers.n or 1
  if known.units > PICTURES_MAX then
    return "invalid_number", "This field must be a whole number of at most 10.", "n"
  end
  if known.stream then
    return "stream_not_offered", "Pictures are not streamed here. Leave the field out.", "stream"
  end
end

local function look_at_speech(known, _, s, first, last)
  if not first.input or byte(s, first.input) ~= QUOTE then
    return "invalid_input", "The text to be spoken is required.", "input"
  end
  known.units = characters_at(s, first.input, last.input)
  known.stream = first.stream_format ~= nil and sub(s, first.stream_format, last.stream_format) == '"sse"'
end

local CHAT_FIELDS = fields("stream_options", "max_tokens", "max_completion_tokens", "n", "speed", "tools", "web_search_options",
  "modalities", "inference_geo", "thinking")
local CHAT_NUMBERS = { "max_tokens", "max_completion_tokens", "n" }
local CHAT_BOUNDS = { "max_tokens", "max_completion_tokens" }
local NONE = {}

return {
  chat = {
    fields = CHAT_FIELDS, numbers = CHAT_NUMBERS, bounds = CHAT_BOUNDS, bound = "max_completion_tokens", tells_usage_if_asked = true,
  },
  messages = { fields = CHAT_FIELDS, numbers = CHAT_NUMBERS, bounds = CHAT_BOUNDS, bound = "max_tokens", is_anthropic = true },
  count_tokens = { fields = fields(), numbers = NONE, bounds = NONE, is_anthropic = true },
  responses = {
    fields = fields("max_output_tokens", "input", "tools", "background", "previous_response_id", "conversation", "prompt"),
    numbers = { "max_output_tokens" }, bounds = { "max_output_tokens" }, bound = "max_output_tokens", look = look_at_response,
  },
  completions = {
    fields = fields("stream_options", "max_tokens", "n", "best_of", "prompt"),
    numbers = { "max_tokens", "n", "best_of" }, bounds = { "max_tokens" }, bound = "max_tokens", tells_usage_if_asked = true,
    look = look_at_completion,
  },
  embeddings = {
    fields = fields("input"), numbers = NONE, bounds = NONE,
    look = function(known, _, s, first) known.units = inputs_at(s, first.input) end,
  },
  moderations = { fields = fields(), numbers = NONE, bounds = NONE },
  rerank = {
    fields = fields("documents", "query"), numbers = NONE, bounds = NONE,
    look = function(known, _, s, first, last)
      known.units = inputs_at(s, first.documents)
      known.query_bytes = first.query and last.query - first.query + 1 or 0
    end,
  },
  images = { fields = fields("n"), numbers = { "n" }, bounds = NONE, look = look_at_pictures },
  speech = { fields = fields("input", "stream_format"), numbers = NONE, bounds = NONE, look = look_at_speech },
}
