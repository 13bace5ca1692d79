-- The lines of a batch, read as the front filter reads requests, by the same scripts. It is not Envoy that runs this, but billing_sink
-- (billing_sink/batches/line_reader.py), which sends the provider what comes out of it.
--
-- Returns two functions. Neither makes values of a body: what is not rewritten goes on as it came.

local refusal
package.loaded.errors = {
  refuse = function(_, _, _, code, message, param) refusal = { code, message, param } end,
}
local json, bodies, reading = require("json"), require("bodies"), require("reading")
local extent, preparation, edits_of_text = require("extent"), require("preparation"), require("edits")

local sub = string.sub
local LINE_FIELDS = { custom_id = true, method = true, url = true, body = true }
local AS_STANDARD = { auto = true, default = true }

-- The texts of the four members of a line; nil and what is wrong.
local function members(s)
  local first, last, texts = {}, {}, {}
  local close, problem = json.scan_object(s, 1, LINE_FIELDS, first, last)
  if not close then return nil, problem end
  local _, rest = json.skip_space(s, close + 1)
  if rest then return nil, "There is something behind the JSON object." end
  for name in pairs(LINE_FIELDS) do
    if not first[name] then return nil, "The field '" .. name .. "' is required." end
    texts[name] = sub(s, first[name], last[name])
  end
  return texts
end

local function refused(code, message, param) return nil, { code, message, param } end

-- Reads a body for an endpoint. Returns what is known of it, as the line of a request says it, and a function that makes of it the body for a
-- provider which calls the model by another name, with its length in `known`; or nil, and the refusal.
local function read(endpoint, s)
  local known, kind = { endpoint = endpoint }, bodies[endpoint]
  refusal = nil
  local found = reading.json_of(nil, known, kind, s)
  if not found then return nil, refusal end
  local first, last, numbers = found.first, found.last, found.numbers
  local code, message, param
  if kind.look then code, message, param = kind.look(known, numbers, s, first, last) end
  if code then return refused(code, message, param) end
  if known.stream then return refused("stream_not_offered", "Nothing is streamed in a batch.", "stream") end
  if known.named or known.keeps then
    return refused("stored_state_not_offered", "A batch neither names what a provider keeps nor has it kept.", nil)
  end
  if known.service_tier and not AS_STANDARD[known.service_tier] then
    return refused("service_tier_not_offered", "A batch is a service tier of its own.", "service_tier")
  end
  known.references = extent.has_references(s)
  known.web_search = known.references and extent.may_search(s)
  known.meters = kind.bound and extent.asked_meters(s, endpoint, first, last) or nil
  for i = 1, #kind.bounds do
    local bound = numbers[kind.bounds[i]]
    if bound and bound > (known.max_output_tokens or 0) then known.max_output_tokens = bound end
  end
  return known, function(upstream_model)
    local edits = { { first.model, last.model, '"' .. upstream_model .. '"' } }
    if kind.is_kept_unless_told then edits[2] = preparation.store_nothing(s, found.close, first, last) end
    return edits_of_text.apply(s, edits)
  end
end

return members, read
