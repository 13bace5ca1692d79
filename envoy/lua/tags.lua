-- What a client has its costs told apart by: the header x-tollgate-tags, else `metadata` of the body, and `user` of the body. Nothing is decided by it, so
-- nothing is refused for it; billing_sink reads it (tags.py). Metadata takes plain text only: what is none is written as escapes.

local byte, char, find, format, gsub, sub = string.byte, string.char, string.find, string.format, string.gsub, string.sub

local QUOTE, OPEN_BRACE = 34, 123
local TAGS_BYTES_MAX, USER_BYTES_MAX = 4096, 256

-- One character of UTF-8 beyond ASCII as JSON has it in plain text; nothing for what is none.
local function escaped(bytes)
  local lead = byte(bytes)
  local length = lead >= 240 and 4 or lead >= 224 and 3 or lead >= 194 and 2 or 0
  if #bytes ~= length then return "" end
  local code = lead - (length == 4 and 240 or length == 3 and 224 or 192)
  for i = 2, length do code = code * 64 + byte(bytes, i) - 128 end
  if code < 65536 then return format("\\u%04x", code) end
  code = code - 65536
  return format("\\u%04x\\u%04x", 55296 + (code - code % 1024) / 1024, 56320 + code % 1024)
end

local BEYOND_ASCII = "[" .. char(128) .. "-" .. char(255) .. "]"
local CHARACTER = "[" .. char(192) .. "-" .. char(255) .. "][" .. char(128) .. "-" .. char(191) .. "]*"

-- The JSON at a span, in plain text.
local function plain(s, first, last)
  local text = sub(s, first, last)
  if find(text, BEYOND_ASCII) then text = gsub(gsub(text, CHARACTER, escaped), BEYOND_ASCII, "") end
  return gsub(text, "[^ -~]", " ")
end

-- Of a header: it is taken away, because it is for nobody else.
local function take_header(headers, known)
  local tags = headers:get("x-tollgate-tags")
  if not tags then return end
  headers:remove("x-tollgate-tags")
  if #tags <= TAGS_BYTES_MAX and not find(tags, "[^ -~]") then known.tags = tags end
end

-- Of a body of JSON, by the spans of its fields.
local function take_fields(known, s, first, last)
  local metadata, user = first.metadata, first.user
  if metadata and not known.tags and byte(s, metadata) == OPEN_BRACE and last.metadata - metadata < TAGS_BYTES_MAX then
    known.tags = plain(s, metadata, last.metadata)
  end
  if user and byte(s, user) == QUOTE and last.user - user < USER_BYTES_MAX then known.user = plain(s, user, last.user) end
end

return { take_header = take_header, take_fields = take_fields }
