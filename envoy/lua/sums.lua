-- Sums of usage objects, number by number, and their text. Called by answering.lua.
--
-- Whatever is a number is added to what stands in the same place of those before, known here or not: what it means is
-- gateway_core/provider_usage.py's to know. Words, truth values and nulls count nothing.

local json = require("json")

local byte, sub, format, concat, sort = string.byte, string.sub, string.format, table.concat, table.sort
local pairs, type, tonumber, floor = pairs, type, tonumber, math.floor

local DEPTH_MAX = 4
local FIELDS_MAX = 64             -- of one object; real ones have some eight
local OPEN_BRACE, OPEN_BRACKET, MINUS = json.OPEN_BRACE, json.OPEN_BRACKET, 45

local EVERY = setmetatable({}, { __index = function() return true end })

-- Adds the object at i to the sum. Returns whether that could be done; if not, the sum is of no use any more.
local function add(sum, s, i, depth)
  depth = depth or 1
  local first, last, count = {}, {}, 0
  if depth > DEPTH_MAX or not json.scan_object(s, i, EVERY, first, last) then return false end
  for name, at in pairs(first) do
    local c, before = byte(s, at), sum[name]
    count = count + 1
    if count > FIELDS_MAX then return false end
    if c == OPEN_BRACE then
      if before == nil then
        before = {}
        sum[name] = before
      end
      if type(before) ~= "table" or not add(before, s, at, depth + 1) then return false end
    elseif c == OPEN_BRACKET then
      -- Nobody has said what a list of them would count.
      return false
    elseif c == MINUS or (c >= 48 and c <= 57) then
      if before ~= nil and type(before) ~= "number" then return false end
      sum[name] = (before or 0) + tonumber(sub(s, at, last[name]))
    end
  end
  return true
end

-- The sum as JSON; equal ones have equal text.
local function text(sum)
  local names, parts = {}, {}
  for name in pairs(sum) do names[#names + 1] = name end
  sort(names)
  for i = 1, #names do
    local value = sum[names[i]]
    if type(value) == "table" then
      value = text(value)
    else
      value = format(value == floor(value) and "%.0f" or "%.17g", value)
    end
    parts[i] = '"' .. names[i] .. '":' .. value
  end
  return "{" .. concat(parts, ",") .. "}"
end

return { add = add, text = text }
