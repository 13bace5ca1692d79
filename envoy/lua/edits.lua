-- Edits of a text: tables {first, last, text}, each of which puts its text in the place of a span, 1-based and inclusive. Spans do not
-- overlap; one whose last is before its first inserts.

local sub, gsub, concat, sort = string.sub, string.gsub, table.concat, table.sort

local function is_earlier(a, b) return a[1] < b[1] end

-- The text with all edits made, which are put into their order.
local function apply(s, edits)
  sort(edits, is_earlier)
  local pieces, done = {}, 0
  for i = 1, #edits do
    local edit = edits[i]
    pieces[2 * i - 1] = sub(s, done + 1, edit[1] - 1)
    pieces[2 * i] = edit[3]
    done = edit[2]
  end
  pieces[#pieces + 1] = sub(s, done + 1)
  return concat(pieces)
end

-- Where what stands at i in the text before the edits stands in the one after them.
local function moved(i, edits)
  local to = i
  for k = 1, #edits do
    local edit = edits[k]
    if edit[1] < i then to = to + #edit[3] - (edit[2] - edit[1] + 1) end
  end
  return to
end

-- The path of a provider for a model: Google's have its name in them.
local function path_for(path, model)
  return (gsub(path, "{model}", model))
end

return { apply = apply, moved = moved, path_for = path_for }
