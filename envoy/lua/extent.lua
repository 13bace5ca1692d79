-- What of a request the length of its body does not tell, so that its worst case is held for: what it names that is not in it, what the
-- provider will count besides tokens, and how short an answer may be. gateway_core/extent.py is what is made of it.

local json = require("json")

local byte, find, concat = string.byte, string.find, table.concat
local has_word, scan_object, whole_number = json.has_word, json.scan_object, json.whole_number

-- Words that bring in what the body's length does not tell: images, files and documents by reference, pages that the provider
-- finds or fetches.
local WEB_SEARCH = '"web_search'
local SEARCH_TOOL = '"web_search_20'   -- the provider's own search, as Anthropic names it with a date
local REFERENCES = {
  '_url"', '"url"', '"file_id"', '"file_data"', '"document"', '"image"', '"web_',
  '"mcp_servers"', '"mcp_toolset"', '"container"', '"code_execution', '"skills"', '"input_audio"',
}
local THINKING_FIELDS = { budget_tokens = true }


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

-- Whether the body names something that is not in it.
local function has_references(s)
  for i = 1, #REFERENCES do
    if find(s, REFERENCES[i], 1, true) then return true end
  end
  return false
end

-- Whether a body with references may have the provider search.
local function may_search(s) return find(s, WEB_SEARCH, 1, true) ~= nil end

-- The fewest tokens that a provider takes for a bound beside what it is told to think, or nil: it has to be more than that.
local function least_output_tokens(s, first, last)
  if not first.thinking then return nil end
  local inner_first, inner_last = {}, {}
  scan_object(s, first.thinking, THINKING_FIELDS, inner_first, inner_last)
  local budget = whole_number(s, inner_first.budget_tokens, inner_last.budget_tokens)
  return budget and budget + 1 or nil
end

return { asked_meters = asked_meters, has_references = has_references, may_search = may_search, least_output_tokens = least_output_tokens }
