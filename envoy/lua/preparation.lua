-- How the body of a request is made ready for its first provider, and what upstream.lua is told so that it can do the same for the next.

local json, edits_of_text = require("json"), require("edits")

local byte, concat = string.byte, table.concat
local skip_space, scan_object, moved = json.skip_space, json.scan_object, edits_of_text.moved
local QUOTE, COMMA, OPEN_BRACE, CLOSE_BRACE = json.QUOTE, json.COMMA, json.OPEN_BRACE, json.CLOSE_BRACE
local STREAM_OPTIONS_FIELDS = { include_usage = true }
local OUR_OPTIONS = '"stream_options":{"include_usage":true}'

-- The span of a member of the body whose value is at a span, with a comma: that in front of it, or behind the first member, as is returned
-- besides. The model is another member.
local function member_span(s, value_first, value_last)
  local first = value_first - 1
  while byte(s, first) ~= QUOTE do first = first - 1 end       -- a colon and spaces
  repeat first = first - 1 until byte(s, first) == QUOTE
  local before = first - 1
  while byte(s, before) ~= COMMA and byte(s, before) ~= OPEN_BRACE do before = before - 1 end
  if byte(s, before) == COMMA then return before, value_last, false end
  return first, (skip_space(s, value_last + 1)), true
end

-- Returns an edit {first, last, text} that makes the provider send usage at the end of a chat stream, whether the client has to be
-- spared the extra chunk, and whether all stream options are in the edit, so that it can be taken back. Everything that the client put
-- into stream_options stays; null or nothing in them is as good as none, and makes way for ours.
local function ask_for_usage(s, close, first, last)
  local options = first.stream_options
  if not options then return { close, close - 1, "," .. OUR_OPTIONS }, true, true end
  local inner_first, inner_last = {}, {}
  local is_empty = byte(s, options) == 110
  if not is_empty then
    local inner_close, problem = scan_object(s, options, STREAM_OPTIONS_FIELDS, inner_first, inner_last)
    if not inner_close then return nil, false, false, problem end
    local _, c = skip_space(s, options + 1)
    is_empty = c == CLOSE_BRACE
  end
  if is_empty then
    local from, to, is_first = member_span(s, options, last.stream_options)
    return { from, to, is_first and OUR_OPTIONS .. "," or "," .. OUR_OPTIONS }, true, true
  end
  local flag = inner_first.include_usage
  if not flag then return { options + 1, options, '"include_usage":true,' }, true, false end
  if byte(s, flag) == 116 then return nil, false, false end
  return { flag, inner_last.include_usage, "true" }, true, false
end

-- Returns an edit that has the provider store nothing of a response; none where the client says so itself.
local function store_nothing(s, close, first, last)
  local store = first.store
  if not store then return { close, close - 1, ',"store":false' } end
  return byte(s, store) == 110 and { store, last.store, "false" } or nil
end

-- What upstream.lua needs to write over the model (with `=` where it is bare text) and the bounds on the output, and to take back the stream options, as `plan` in the
-- metadata. `mark` is the edit of the model (none where that stands in the path), `options` the one that put the stream options in, if one has. A null is as good as a
-- field that is not there, but for a provider that knows the older bound only.
local function plan_of(endpoint, kind, numbers, first, last, mark, options, edits)
  if not mark then return "" end
  local from = moved(mark[1], edits)
  local parts = { (kind.files and "=" or "") .. from .. "," .. from + #mark[3] - 1 }
  local function add(name)
    parts[#parts + 1] = moved(first[name], edits) .. "," .. moved(last[name], edits)
  end
  for i = 1, #kind.bounds do
    if numbers[kind.bounds[i]] then add(kind.bounds[i]) end
  end
  local name = kind.bound
  if name and not parts[2] then
    if first[name] then add(name) else parts[2] = "+" .. name end
  end
  if endpoint == "chat" and first.max_tokens and not numbers.max_tokens then add("max_tokens") end
  if options then
    local at = moved(options[1], edits)
    parts[#parts + 1] = "-" .. at .. "," .. at + #options[3] - 1
  end
  return concat(parts, " ")
end

return { ask_for_usage = ask_for_usage, store_nothing = store_nothing, plan_of = plan_of }
