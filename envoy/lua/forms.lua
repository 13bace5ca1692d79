-- Forms (multipart/form-data) as far as reading.lua has to read them: where the text of the fields stands. Strict on purpose: what two
-- readers could read in two ways is refused, or a model could be paid for and another one be served.
--
-- The boundary is looked for by plain string.find, once through the body; Lua patterns see headers of parts only.

local find, sub, match, lower = string.find, string.sub, string.match, string.lower

local CRLF = "\r\n"
local PARTS_MAX = 200
local LINE_BYTES_MAX = 1024       -- of a part's header
local TEXT_BYTES_MAX = 1024       -- of a field that somebody here needs

-- The boundary of a content type, or nil if that is not exactly a form's: one parameter, in the characters of RFC 2046 without the
-- space, and in quotation marks where HTTP asks for them.
local function boundary_of(content_type)
  local value = content_type and match(content_type, "^multipart/form%-data; ?boundary=(.+)$")
  if not value then return nil end
  local boundary = match(value, "^[%w'+_.-]+$") or match(value, "^\"([%w'()+_,./:=?-]+)\"$")
  return boundary and #boundary <= 70 and boundary or nil
end

-- The name in a part's Content-Disposition, and whether the part is a file; nil if it could be read in two ways.
local function disposition(value)
  local name, rest = match(value, '^form%-data; ?name="([%w_.%[%]-]+)"(.*)$')
  if not name or rest == "" then return name, false end
  -- Without a semicolon: whoever splits at those first must find no other name.
  if match(rest, '^; ?filename="[^";\\]*"$') then return name, true end
  return nil
end

-- The content types that a field of text may have: nobody reads another text by them.
local TEXT_TYPES = {
  ["text/plain"] = true, ["text/plain;charset=utf-8"] = true, ["text/plain; charset=utf-8"] = true,
  ["text/plain;charset=us-ascii"] = true, ["text/plain; charset=us-ascii"] = true,
}

-- Reads the headers of the part that begins at i and goes no further than part_last. Returns where its content begins, its name and
-- whether it is a file; or nil and what is wrong.
local function part_headers(s, i, part_last)
  local named, type_of_content
  while true do
    local line_last = find(s, CRLF, i, true)
    if not line_last or line_last > part_last then return nil, "A part's headers do not end." end
    if line_last == i then break end
    if line_last - i > LINE_BYTES_MAX then return nil, "A part's header is too long." end
    local line = sub(s, i, line_last - 1)
    if find(line, "[%z\1-\31\127]") then return nil, "A part's header has a control character." end
    local header, value = match(line, "^([%w-]+): ?([^ ].*)$")
    header = header and lower(header)
    if header == "content-disposition" and not named then
      named = value
    elseif header == "content-type" and not type_of_content then
      type_of_content = lower(value)
    else
      return nil, "A part has Content-Disposition and Content-Type, each once and on one line, and no other header."
    end
    i = line_last + 2
  end
  local name, is_file
  if named then name, is_file = disposition(named) end
  if not name then return nil, 'A part is named by form-data; name=\\"...\\", in plain characters, with filename=\\"...\\" at most.' end
  if type_of_content and (is_file and find(type_of_content, "^multipart/") or not is_file and not TEXT_TYPES[type_of_content]) then
    return nil, "A part is a file, or plain text in UTF-8, and no form itself."
  end
  return i + 2, name, is_file
end

-- Whether a part of this name is taken for a field that somebody here needs, by a reader who minds case and brackets less.
local function resembles(name, wanted)
  local plain = lower(match(name, "^[^%[%].]*"))
  return wanted[plain] and plain ~= name
end

-- Walks the parts. first[name] and last[name] become the span of the text of each wanted field, which is empty where last is before first.
-- `files` has the names of those that are files; no other part is one, and each of these is.
-- Returns how many files there are and how many bytes they have together, or nil and what is wrong.
local function scan(s, boundary, wanted, files, first, last)
  local delimiter = "--" .. boundary
  if sub(s, 1, #delimiter) ~= delimiter then return nil, "The body does not begin with the boundary." end
  local seen, parts, count, file_bytes, at = {}, 0, 0, 0, 1
  repeat
    local i = at + #delimiter
    if sub(s, i, i + 1) ~= CRLF then return nil, "A boundary does not end its line." end
    i = i + 2
    at = find(s, delimiter, i, true)
    -- Wherever the delimiter stands, some reader may see one.
    if not at or sub(s, at - 2, at - 1) ~= CRLF then return nil, "A part does not end with a boundary on a line of its own." end
    local part_last = at - 3
    local content, name, is_file = part_headers(s, i, part_last)
    if not content then return nil, name end
    if content > part_last + 1 then return nil, "A part's headers do not end." end
    if resembles(name, wanted) or name == "_charset_" then return nil, "A field has a name that could be taken for another one." end
    if seen[name] and sub(name, -2) ~= "[]" then return nil, "The same field appears twice." end
    seen[name] = true
    parts = parts + 1
    if parts > PARTS_MAX then return nil, "The form has more than 200 parts." end
    if is_file ~= (files[name] == true) then return nil, "A field was sent as a file that is none, or the other way round." end
    if is_file then
      count, file_bytes = count + 1, file_bytes + part_last - content + 1
      first[name] = content
    elseif wanted[name] then
      if part_last - content >= TEXT_BYTES_MAX then return nil, "A field is too long." end
      first[name], last[name] = content, part_last
    end
  until sub(s, at + #delimiter, at + #delimiter + 1) == "--"
  local rest = sub(s, at + #delimiter + 2)
  if rest ~= "" and rest ~= CRLF then return nil, "There is something behind the form." end
  return count, file_bytes
end

return { boundary_of = boundary_of, scan = scan }
