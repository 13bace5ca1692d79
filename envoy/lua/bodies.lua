-- What has to be known of the body of each endpoint. By the endpoint's name, a table:
--   fields                 the top-level fields that somebody here needs
--   numbers                of those, the ones that must be null or a whole number >= 1: a provider might be more generous in reading
--                          them than we are
--   bounds, bound          those that bound the output, and the one that does where the client bounds it by nothing; nil: none does
--   tells_usage_if_asked   whether a stream tells its usage only if stream_options ask for it
--   files                  of a form: the names of its fields that are files; nil: the body is JSON
--   has_no_model           whether no model is named
--   is_kept_unless_told    whether the provider keeps the answer, for all tenants alike, unless `store` says no
--   is_anthropic           whether its errors are Anthropic's
--   look(known, numbers, s, first, last)
--                          what is read of it besides, into `known`; returns code, message and field of a refusal, or nothing

local json, kept = require("json"), require("kept")

local sub, byte, find, match, max = string.sub, string.byte, string.find, string.match, math.max
local concat, setmetatable, tonumber = table.concat, setmetatable, tonumber
local scan_object, scan_array, skip_space, has_word = json.scan_object, json.scan_array, json.skip_space, json.has_word
local QUOTE, BACKSLASH, OPEN_BRACE, OPEN_BRACKET = json.QUOTE, json.BACKSLASH, json.OPEN_BRACE, json.OPEN_BRACKET
local CLOSE_BRACKET = json.OPEN_BRACKET + 2
local NULL, TRUE, FALSE = 110, 116, 102

local PICTURES_MAX = 10
local INPUTS_MAX = 32                  -- of a moderation, which is sold by the request
local INSTRUCTIONS_CHARACTERS_MAX = 4096
-- What the last event of a stream of a response says again; response.lua reads an event of four times this.
local ECHO_BYTES_MAX = 1048576
-- What a stream of a response may include: all else makes its last event longer than anybody could say before.
local INCLUDED_IN_STREAMS = '"reasoning.encrypted_content"'
-- Fields with which some providers do, or charge, what no usage tells: searches, plugins, other providers with other prices.
local EXTRAS = { "plugins", "provider", "preset", "route", "search_parameters" }
-- Other words, with some provider, for how many pictures there shall be.
local OTHER_NUMBERS = { "num_images", "num_images_per_prompt", "batch_size", "sampleCount", "sample_count" }
-- Tools that cost the tokens they bring and nothing else, by their type as JSON. What a provider's own tool fetches is in no body that we see,
-- and may be read many times in one answer.
local CHAT_TOOLS = { ['"function"'] = true, ['"custom"'] = true }
local RESPONSE_TOOLS = {
  ['"function"'] = true, ['"custom"'] = true, ['"local_shell"'] = true, ['"apply_patch"'] = true, ['"computer"'] = true,
  ['"computer_use_preview"'] = true,
}
local ELSEWHERE = { "url", "file_url", "audio_url", "image_url", "file_id" }
-- Of Anthropic's, all but the end of the date. All are run by the client, but for the search, which has a meter, and the one that finds
-- tools of the same body.
local DATED_TOOLS = {
  ['"bash_20'] = true, ['"text_editor_20'] = true, ['"computer_20'] = true, ['"memory_20'] = true, ['"web_search_20'] = true,
  ['"tool_search_tool_regex_20'] = true, ['"tool_search_tool_bm25_20'] = true,
}
local DATE_END_LENGTH = 7              -- yymmdd and the quotation mark
-- What a provider keeps that nobody here knows an owner of.
local STORED = { "conversation", "prompt" }
-- Anything of it makes an item whole that has an id besides.
local CONTENTS = { "content", "encrypted_content", "arguments", "input", "output", "action", "operation", "result", "tools" }
local ITEM_FIELDS = { type = true, role = true, id = true }
for i = 1, #CONTENTS do ITEM_FIELDS[CONTENTS[i]] = true end
local TOOL_FIELDS = { type = true }
local UNNAMED = ""
local KIND_LENGTH_MAX = 64

local function fields(...)
  local found = { model = true, stream = true, service_tier = true, models = true, user = true, metadata = true, safety_identifier = true, prompt_cache_key = true }
  for i = 1, select("#", ...) do found[select(i, ...)] = true end
  return found
end

-- The same of an endpoint on which text is written.
local function text_fields(...)
  local found = fields("tools", ...)
  for i = 1, #EXTRAS do found[EXTRAS[i]] = true end
  return found
end

local function is_given(s, at) return at ~= nil and byte(s, at) ~= NULL end

-- The first of these fields that is given, or nil.
local function first_given(s, names, first)
  for i = 1, #names do
    if is_given(s, first[names[i]]) then return names[i] end
  end
end

-- How many inputs stand at a span: those of a list, but a list of numbers is one text as tokens.
local function inputs_at(s, at)
  if not at or byte(s, at) ~= OPEN_BRACKET then return 1 end
  local count, only_numbers = 0, true
  scan_array(s, at, nil, function(c)
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
        local is_half = false
        if byte(s, i + 2) == 100 or byte(s, i + 2) == 68 then      -- d or D
          local code = tonumber(sub(s, i + 2, i + 5), 16) or 0
          is_high, is_half = code >= 0xD800 and code < 0xDC00, code >= 0xDC00 and code < 0xE000
        end
        -- The second half of a pair is no character; alone, it is one that somebody has to say.
        if not (after_high and is_half) then count = count + 1 end
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

-- Whether an item of the input of a response has something beside its id: no null, and no list of nothing.
local function has_contents(s, item)
  for i = 1, #CONTENTS do
    local at = item[CONTENTS[i]]
    if is_given(s, at) then
      local _, c = skip_space(s, at + 1)
      if byte(s, at) ~= OPEN_BRACKET or c ~= CLOSE_BRACKET then return true end
    end
  end
  return false
end

-- Whether an item of the input of a response names one that the provider has stored, or cannot be read.
local function names_stored_item(s, at)
  if not at or byte(s, at) ~= OPEN_BRACKET then return false end
  return scan_array(s, at, ITEM_FIELDS, function(c, item, item_last)
    if c ~= OPEN_BRACE then return false end
    if not item then return true end
    if not is_given(s, item.type) then return not is_given(s, item.role) end
    return sub(s, item.type, item_last.type) == '"item_reference"' or is_given(s, item.id) and not has_contents(s, item)
  end)
end

-- The first tool that is not offered, by its type, or as UNNAMED if that is none to be said again; nil if all are. `is_offered` is asked of a type
-- as JSON, nil where there is none. Nor is one offered in which another reader might find another type.
local function other_tool(s, at, is_offered)
  if not is_given(s, at) then return nil end
  if byte(s, at) ~= OPEN_BRACKET then return UNNAMED end
  local other
  scan_array(s, at, TOOL_FIELDS, function(_, tool, tool_last)
    local kind = tool and tool.type and sub(s, tool.type, tool_last.type)
    if tool and is_offered(kind) then return false end
    other = kind and #kind <= KIND_LENGTH_MAX and match(kind, '^"([%w_.:-]+)"$') or UNNAMED
    return true
  end)
  return other
end

local function is_chat_tool(kind) return CHAT_TOOLS[kind or ""] end

local function is_response_tool(kind) return RESPONSE_TOOLS[kind or ""] end

-- One of the client's own needs no type at Anthropic.
local function is_anthropic_tool(kind)
  return not kind or kind == "null" or kind == '"custom"' or DATED_TOOLS[sub(kind, 1, -DATE_END_LENGTH - 1)]
end

local FILE_ID = '"file_id"'
local NOT_AN_ID = "This is not the id of anything that a provider keeps."

-- Reads what a response names that its provider keeps, and whether that is to keep it as well: then it is the other endpoint that is asked
-- for. Returns what is wrong.
local function look_at_kept(known, s, first, last)
  local names = {}
  if is_given(s, first.previous_response_id) then
    local id = kept.text_at(s, first.previous_response_id, last.previous_response_id)
    names[1] = id and kept.name_of("response", id)
    if not names[1] then return "invalid_input", NOT_AN_ID, "previous_response_id" end
  end
  if first.input and not kept.add_files(s, FILE_ID, first.input, last.input, names) then return "invalid_input", NOT_AN_ID, "input" end
  local store = first.store and byte(s, first.store)
  if store and store ~= NULL and store ~= TRUE and store ~= FALSE then
    return "invalid_input", "The field 'store' is true, false or null.", "store"
  end
  known.keeps = store == TRUE or nil
  if names[1] then
    known.named = concat(names, ",")
    known.references = true
  end
  if names[1] or known.keeps then known.endpoint = "stored_responses" end
end

local function refused_tool(name, param)
  local tool = name == UNNAMED and "There is a tool that" or "The tool '" .. name .. "'"
  return "tool_not_offered", tool .. " is not offered on this endpoint.", param or "tools"
end

local function refused_extra(s, first)
  local extra = first_given(s, EXTRAS, first)
  if extra then return "feature_not_offered", "What this field asks for is counted in no usage. Leave it out.", extra end
end

local function look_at_chat(_, _, s, first, last)
  local other = other_tool(s, first.tools, is_chat_tool)
  if other then return refused_tool(other) end
  -- A file is the organisation's that has sent it, and nobody here would ask whose it is.
  if first.messages and has_word(s, FILE_ID, first.messages, last.messages) then
    return "stored_state_not_offered", "Send the file itself, or name it on /v1/responses.", "messages"
  end
  if is_given(s, first.web_search_options) then
    return "feature_not_offered", "Searches are counted in no usage of this endpoint. Leave the field out.", "web_search_options"
  end
  return refused_extra(s, first)
end

local function look_at_messages(_, _, s, first)
  local other = other_tool(s, first.tools, is_anthropic_tool)
  if other then return refused_tool(other) end
  -- Tools that are elsewhere, and a place to run code in, which may be another tenant's.
  if is_given(s, first.mcp_servers) then return refused_tool(UNNAMED, "mcp_servers") end
  if is_given(s, first.container) then return refused_tool(UNNAMED, "container") end
  return refused_extra(s, first)
end

-- Whether a stream of a response would end with an event that is longer than its instructions and its output.
local function includes_too_much(s, first, last)
  if is_given(s, first.top_logprobs) and sub(s, first.top_logprobs, last.top_logprobs) ~= "0" then return "top_logprobs" end
  local include = first.include
  if not is_given(s, include) then return nil end
  if byte(s, include) ~= OPEN_BRACKET then return "include" end
  return scan_array(s, include, nil, function(_, _, _, from, to)
    return sub(s, from, to) ~= INCLUDED_IN_STREAMS
  end) and "include" or nil
end

local function look_at_response(known, _, s, first, last)
  local stored = first_given(s, STORED, first)
  if stored then
    return "stored_state_not_offered", "What a provider has stored cannot be kept to its owner here. Send the whole input.", stored
  end
  if first.background and byte(s, first.background) ~= NULL and byte(s, first.background) ~= FALSE then
    return "stored_state_not_offered", "An answer that is fetched later would be metered by nobody. Wait for it.", "background"
  end
  if names_stored_item(s, first.input) or (first.input and has_word(s, '"container_id"', first.input, last.input)) then
    return "stored_state_not_offered", "An item of the input is not told whole. Send it with its type and content.", "input"
  end
  local code, message, param = look_at_kept(known, s, first, last)
  if code then return code, message, param end
  local other = other_tool(s, first.tools, is_response_tool)
  if other then return refused_tool(other) end
  local too_much = known.stream and includes_too_much(s, first, last)
  if too_much then
    return "feature_not_offered", "The last event of a stream would be too long to be read for its usage. Leave the field out.", too_much
  end
  local input_bytes = first.input and last.input - first.input or 0
  if known.stream and #s - input_bytes > ECHO_BYTES_MAX then
    return "invalid_input", "Instructions and tools of a stream have 1 MiB together at most.", "instructions"
  end
  return refused_extra(s, first)
end

local function look_at_completion(known, numbers, s, first, last)
  known.units = inputs_at(s, first.prompt)
  known.choices = max(numbers.n or 1, numbers.best_of or 1) * max(1, known.units)
  return look_at_chat(known, numbers, s, first, last)
end

local function look_at_moderation(_, _, s, first)
  if not is_given(s, first.input) or byte(s, first.input) ~= OPEN_BRACKET then return end
  local count = 0
  if scan_array(s, first.input, nil, function()
    count = count + 1
    return count > INPUTS_MAX
  end) then
    return "invalid_input", "The list has 32 inputs at most.", "input"
  end
end

local function look_at_pictures(known, numbers, s, first)
  local other = first_given(s, OTHER_NUMBERS, first)
  if other then return "invalid_number", "How many pictures there shall be is said in the field 'n'.", other end
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
  if is_given(s, first.instructions) and (byte(s, first.instructions) ~= QUOTE
    or characters_at(s, first.instructions, last.instructions) > INSTRUCTIONS_CHARACTERS_MAX) then
    return "invalid_input", "The instructions are a text of at most 4,096 characters.", "instructions"
  end
  known.units = characters_at(s, first.input, last.input)
  known.stream = first.stream_format ~= nil and sub(s, first.stream_format, last.stream_format) == '"sse"'
end

-- Sound that is only named could be of any length, and so could pictures.
local function names_what_is_elsewhere(first)
  for i = 1, #ELSEWHERE do
    if first[ELSEWHERE[i]] then return "invalid_input", "Send the file itself.", ELSEWHERE[i] end
  end
end

-- The answers of which a provider says, somewhere, how much it has heard.
local function look_at_sound(formats, default)
  return function(_, _, s, first, last)
    local code, message, param = names_what_is_elsewhere(first)
    if code then return code, message, param end
    if not first.file then return "invalid_input", "A file is required.", "file" end
    if not formats[first.response_format and sub(s, first.response_format, last.response_format) or default] then
      return "usage_required", "An answer in this form does not say how much was heard. Ask for one that does, such as verbose_json.",
        "response_format"
    end
  end
end

local function look_at_upload(_, _, _, first)
  local code, message, param = names_what_is_elsewhere(first)
  if code then return code, message, param end
  if not first.file then return "invalid_input", "A file is required.", "file" end
end

local function look_at_batch(known, _, s, first, last)
  local id = kept.text_at(s, first.input_file_id, last.input_file_id)
  known.named = id and kept.name_of("file", id)
  if not known.named then return "invalid_input", NOT_AN_ID, "input_file_id" end
end

local function look_at_edit(known, numbers, s, first)
  local code, message, param = names_what_is_elsewhere(first)
  if code then return code, message, param end
  return look_at_pictures(known, numbers, s, first)
end

-- Names that Google reads in two spellings.
local SPELLINGS = {
  { "generationConfig", "generation_config" }, { "cachedContent", "cached_content" },
}
local CONFIG_SPELLINGS = {
  { "maxOutputTokens", "max_output_tokens" }, { "candidateCount", "candidate_count" }, { "responseModalities", "response_modalities" },
}
local CONFIG_FIELDS = {
  maxOutputTokens = true, candidateCount = true, responseModalities = true,
  max_output_tokens = true, candidate_count = true, response_modalities = true,
}
local CANDIDATES_MAX = 8
local MODALITIES = { ['"TEXT"'] = "", ['"IMAGE"'] = "image_output", ['"AUDIO"'] = "audio_output" }
local IN_THE_BODY = { '"inlineData"', '"inline_data"' }
local OUT_OF_THE_BODY = { '"fileData"', '"file_data"', '"fileUri"', '"file_uri"' }

-- Has the spans of fields stand under the first of their spellings. Of a field in both, nobody could say which one is read.
local function spell(spellings, first, last)
  for i = 1, #spellings do
    local name, other = spellings[i][1], spellings[i][2]
    if first[other] then
      if first[name] then return "invalid_input", "This field is there in two spellings.", name end
      first[name], last[name] = first[other], last[other]
    end
  end
end

local function has_any(s, words)
  for i = 1, #words do
    if find(s, words[i], 1, true) then return true end
  end
  return false
end

-- What the first tool is that is something else than functions of the client's own, as other_tool says it; Google tells them apart by a key.
local function other_than_functions(s, at)
  if not is_given(s, at) then return nil end
  if byte(s, at) ~= OPEN_BRACKET then return UNNAMED end
  local found
  -- Asked for every key, in lower case before where that differs, and takes none.
  local keys = setmetatable({}, { __index = function(_, key)
    if key ~= "functionDeclarations" and key ~= "functiondeclarations" and key ~= "function_declarations" then
      found = #key <= KIND_LENGTH_MAX and match(key, "^[%w_]+$") or UNNAMED
    end
  end })
  scan_array(s, at, keys, function(_, tool)
    if not tool then found = found or UNNAMED end
    return found ~= nil
  end)
  return found
end

-- A count in a configuration: nil where there is none, false where it is no plain one.
local function count_at(s, first, last)
  if not is_given(s, first) then return nil end
  local value = match(sub(s, first, last), "^[1-9]%d*$")
  value = value and tonumber(value)
  return value and value <= 1e9 and value or false
end

local function look_at_configuration(known, meters, s, at)
  local first, last = {}, {}
  if not is_given(s, at) then return end
  local close, problem = scan_object(s, at, CONFIG_FIELDS, first, last)
  if not close then return "invalid_json", problem, "generationConfig" end
  local code, message, param = spell(CONFIG_SPELLINGS, first, last)
  if code then return code, message, param end
  local bound = count_at(s, first.maxOutputTokens, last.maxOutputTokens)
  local candidates = count_at(s, first.candidateCount, last.candidateCount)
  if bound == false or candidates == false or (candidates or 1) > CANDIDATES_MAX then
    return "invalid_number", "This field has a number that is not offered.", "generationConfig"
  end
  known.max_output_tokens, known.choices = bound, candidates
  if not is_given(s, first.responseModalities) then return end
  local unknown = byte(s, first.responseModalities) ~= OPEN_BRACKET
  if not unknown then
    unknown = scan_array(s, first.responseModalities, nil, function(_, _, _, from, to)
      local meter = MODALITIES[sub(s, from, to)]
      if meter and meter ~= "" then meters[#meters + 1] = meter end
      return not meter
    end)
  end
  if unknown then return "invalid_input", "There is something else than TEXT, IMAGE and AUDIO.", "generationConfig" end
end

local function look_at_generation(streams)
  return function(known, _, s, first, last)
    known.stream = streams
    local code, message, param = spell(SPELLINGS, first, last)
    if code then return code, message, param end
    if is_given(s, first.cachedContent) or has_any(s, OUT_OF_THE_BODY) then
      return "stored_state_not_offered", "What a provider has stored cannot be kept to its owner here. Send it whole.", "cachedContent"
    end
    local other = other_than_functions(s, first.tools)
    if other then return refused_tool(other) end
    local meters = {}
    code, message, param = look_at_configuration(known, meters, s, first.generationConfig)
    if code then return code, message, param end
    known.references = has_any(s, IN_THE_BODY)
    if find(s, '"audio/', 1, true) then meters[#meters + 1] = "audio_input" end
    known.meters = meters[1] and concat(meters, ",") or nil
  end
end

local CHAT_FIELDS = text_fields("stream_options", "max_tokens", "max_completion_tokens", "n", "speed", "web_search_options",
  "modalities", "inference_geo", "thinking", "mcp_servers", "container", "messages")
local CHAT_NUMBERS = { "max_tokens", "max_completion_tokens", "n" }
local CHAT_BOUNDS = { "max_tokens", "max_completion_tokens" }
local NONE = {}
local GENERATION_FIELDS = fields("generationConfig", "generation_config", "cachedContent", "cached_content", "tools")
local SOUND_FIELDS = fields("response_format", "url", "file_url", "audio_url", "file_id")
local ONE_FILE = { file = true }

return {
  chat = {
    fields = CHAT_FIELDS, numbers = CHAT_NUMBERS, bounds = CHAT_BOUNDS, bound = "max_completion_tokens", tells_usage_if_asked = true,
    look = look_at_chat,
  },
  messages = {
    fields = CHAT_FIELDS, numbers = CHAT_NUMBERS, bounds = CHAT_BOUNDS, bound = "max_tokens", is_anthropic = true, look = look_at_messages,
  },
  count_tokens = { fields = fields(), numbers = NONE, bounds = NONE, is_anthropic = true },
  generate = { fields = GENERATION_FIELDS, numbers = NONE, bounds = NONE, look = look_at_generation(false) },
  stream_generate = { fields = GENERATION_FIELDS, numbers = NONE, bounds = NONE, look = look_at_generation(true) },
  responses = {
    fields = text_fields("max_output_tokens", "input", "background", "previous_response_id", "conversation", "prompt", "store", "include",
      "top_logprobs"),
    numbers = { "max_output_tokens" }, bounds = { "max_output_tokens" }, bound = "max_output_tokens", is_kept_unless_told = true,
    look = look_at_response,
  },
  completions = {
    fields = text_fields("stream_options", "max_tokens", "n", "best_of", "prompt", "web_search_options"),
    numbers = { "max_tokens", "n", "best_of" }, bounds = { "max_tokens" }, bound = "max_tokens", tells_usage_if_asked = true,
    look = look_at_completion,
  },
  embeddings = {
    fields = fields("input"), numbers = NONE, bounds = NONE,
    look = function(known, _, s, first) known.units = inputs_at(s, first.input) end,
  },
  moderations = { fields = fields("input"), numbers = NONE, bounds = NONE, look = look_at_moderation },
  rerank = {
    fields = fields("documents", "query"), numbers = NONE, bounds = NONE,
    look = function(known, _, s, first, last)
      known.units = inputs_at(s, first.documents)
      known.query_bytes = first.query and last.query - first.query + 1 or 0
    end,
  },
  images = { fields = fields("n", unpack(OTHER_NUMBERS)), numbers = { "n" }, bounds = NONE, look = look_at_pictures },
  image_edits = {
    fields = fields("n", "url", "file_url", "image_url", "file_id", unpack(OTHER_NUMBERS)), files = { image = true, ["image[]"] = true, mask = true },
    numbers = { "n" }, bounds = NONE, look = look_at_edit,
  },
  transcriptions = {
    fields = SOUND_FIELDS, files = ONE_FILE, numbers = NONE, bounds = NONE,
    look = look_at_sound({ json = true, verbose_json = true, diarized_json = true }, "json"),
  },
  -- In plain JSON, OpenAI's translations tell nothing.
  translations = {
    fields = SOUND_FIELDS, files = ONE_FILE, numbers = NONE, bounds = NONE, look = look_at_sound({ verbose_json = true }, "json"),
  },
  file_upload = {
    fields = { url = true, file_url = true, audio_url = true, image_url = true, file_id = true }, files = ONE_FILE, numbers = NONE,
    bounds = NONE, has_no_model = true, look = look_at_upload,
  },
  -- All else of it is read by billing_sink.
  batch_create = { fields = { input_file_id = true }, numbers = NONE, bounds = NONE, has_no_model = true, look = look_at_batch },
  speech = { fields = fields("input", "instructions", "stream_format"), numbers = NONE, bounds = NONE, look = look_at_speech },
}
