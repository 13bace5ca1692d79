-- JSON, as far as front.lua has to read it: where things stand in a text, without making values of them.
--
-- string.byte and plain string.find compile to machine code; Lua patterns do not, so none stands in a loop over a body.

local find, sub, byte, lower = string.find, string.sub, string.byte, string.lower
local tonumber, floor = tonumber, math.floor

local DEPTH_MAX = 512             -- nesting; real tool schemas stay below 40
local ASKED_DEPTH_MAX = 500       -- that of a request: an answer that says it again does so a level or two deeper
local VALUES_MAX = 1000000        -- in a request; 10,000 messages have some 40,000, and a batch of embeddings as tokens 300,000
local KEYS_MAX = 1000             -- keys at the top level; real requests stay below 40
local NOT_JSON = "The body is not valid JSON."
local TOO_DEEP = "The body is nested too deeply."
local TOO_MANY = "The body has more than 1,000,000 values."

local QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET = 123, 125, 91

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
-- not looked at. Where it may be nested no deeper than depth_max and have no more than `left` values inside, also returns how many
-- are left then, or what is wrong.
local function skip_value(s, i, c, depth_max, left)
  depth_max, left = depth_max or DEPTH_MAX, left or #s
  if c ~= OPEN_BRACE and c ~= OPEN_BRACKET then
    i = skip_scalar(s, i, c)
    if not i then return nil end
    return i, left
  end
  local depth = 1
  open_brackets[1] = c
  local opened = true
  i, c = skip_space(s, i + 1)
  while true do
    -- Here c is the first byte of an element, or what closes a bracket that has just been opened.
    if not (opened and c == open_brackets[depth] + 2) then
      left = left - 1
      if left < 0 then return nil, TOO_MANY end
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
        if depth > depth_max then return nil, TOO_DEEP end
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
        if depth == 0 then return i, left end
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
  local seen, count, left = {}, 0, VALUES_MAX
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
    local value_last, rest = skip_value(s, i, c, ASKED_DEPTH_MAX, left)
    if not value_last then return nil, rest or NOT_JSON end
    left = rest
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

-- Walks the array that begins at i, of which is known that it is JSON, and hands every element to `visit`: its first byte; of an object, the
-- spans of the wanted fields, as scan_object has them, and none if it refuses the object; its own span. Ends where `visit` returns true,
-- and returns that.
local function scan_array(s, i, wanted, visit)
  local c
  i, c = skip_space(s, i + 1)
  if c == OPEN_BRACKET + 2 then return false end
  while true do
    local first, last, close
    if c == OPEN_BRACE and wanted then
      first, last = {}, {}
      close = scan_object(s, i, wanted, first, last)
    end
    local value_last = close or skip_value(s, i, c)
    if visit(c, close and first, last, i, value_last) then return true end
    i, c = skip_space(s, value_last + 1)
    if c ~= COMMA then return false end
    i, c = skip_space(s, i + 1)
  end
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

-- The whole number at a span, or nil for null; false for anything else.
local function whole_number(s, first, last)
  if not first or byte(s, first) == 110 then return nil end
  local value = tonumber(sub(s, first, last))
  if not value or value < 1 or value > 1e9 or value ~= floor(value) then return false end
  return value
end

return {
  QUOTE = QUOTE, BACKSLASH = BACKSLASH, COMMA = COMMA, COLON = COLON, OPEN_BRACE = OPEN_BRACE, CLOSE_BRACE = CLOSE_BRACE,
  OPEN_BRACKET = OPEN_BRACKET,
  skip_space = skip_space, skip_string = skip_string, skip_value = skip_value, scan_object = scan_object,
  scan_array = scan_array, has_word = has_word, whole_number = whole_number,
}
