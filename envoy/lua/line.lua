-- What the line of a request in the spool will hold, as JSON, for whoever has to be told of it before there is one.

local byte, gsub, format = string.byte, string.gsub, string.format
local concat, pairs, tostring, type = table.concat, pairs, tostring, type

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

return { quoted = quoted, struct = struct }
