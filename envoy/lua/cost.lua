-- What a request costs, in a header of its answer. Called by response.lua, for clients that ask for it; changes nothing else.

local byte, find, format, gsub = string.byte, string.find, string.format, string.gsub
local concat, pairs, tostring, type = table.concat, pairs, tostring, type

local TIMEOUT_MS = 250     -- as long as an answer may wait to be told what it costs

-- Texts as JSON, and structs of texts, numbers and truth values: what is in our metadata, and what a line of the spool has of it.
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }
local function quoted(text)
  return '"' .. gsub(text, '[%c"\\]', function(c) return ESCAPES[c] or format("\\u%04x", byte(c)) end) .. '"'
end

local function struct(fields)
  local parts = {}
  for name, value in pairs(fields) do
    local kind = type(value)
    if kind == "string" then
      value = quoted(value)
    elseif kind == "number" then
      value = format("%.0f", value)
    end
    if kind ~= "table" then parts[#parts + 1] = quoted(name) .. ":" .. tostring(value) end
  end
  return "{" .. concat(parts, ",") .. "}"
end

-- Asks the billing sink what a request costs that `cluster` has answered: with what its line in the spool will have, so that the
-- sink rates one like the other. No answer in time, and the client is told nothing.
local function tell(h, cluster, status, request, grant, usage, tier)
  local line = '{"v":1,"type":"DownstreamEnd","start_time":' .. format("%.0f", h:timestamp()) .. ',"status":' .. status
    .. ',"cluster":' .. quoted(cluster) .. ',"request":' .. struct(request) .. ',"grant":' .. struct(grant)
    .. ',"usage_first":' .. quoted(usage) .. (tier and ',"service_tier":' .. quoted(tier) or "") .. "}"
  local answer, amount = h:httpCall("billing_sink",
    { [":method"] = "POST", [":path"] = "/cost", [":authority"] = "billing_sink", ["content-type"] = "application/json" },
    line, TIMEOUT_MS)
  if answer[":status"] == "200" and find(amount, "^%d+%.%d+$") then h:headers():replace("x-tollgate-cost", amount) end
end

return { tell = tell }
