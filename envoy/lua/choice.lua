-- Which provider a request tries first, and in which order the others, where its route leaves that to each request: one that keeps to a value
-- of the request, all in turn by their weights, or now and then another one than the fastest. request.lua asks once the route is known.
-- What is remembered from one request to the next is each worker's own. `control_plane/catalog/stickiness.py` computes what `by_value` does.

local json = require("json")

local sub, byte, match, gmatch, log, sort = string.sub, string.byte, string.match, string.gmatch, math.log, table.sort
local insert, remove = table.insert, table.remove
local tonumber = tonumber
local bxor, rshift = bit.bxor, bit.rshift
local QUOTE, OPEN_BRACE = json.QUOTE, json.OPEN_BRACE

local ORDER_NAMESPACE, PRIORITY_GROUPS = "tollgate.order", "priority_groups"
local TRIAL_EVERY = 20           -- control_plane/catalog/strategies.py has it too
local ROUTES_MAX = 4096          -- whose turns are remembered; with one more, all begin anew
local VALUE_BYTES_MAX = 512      -- of a value, what is read
local WORD = 2 ^ 32

-- In which fields a value may stand; the first that has one counts. In Anthropic's form it is one further down.
local FIELDS = { user = { "safety_identifier", "user" }, prompt_cache_key = { "prompt_cache_key" } }
local IN_METADATA = { user_id = true }

local turns, routes = {}, 0

-- What is remembered of a route: how many requests it had, and what each cluster has saved up towards its turn.
local function turns_of(route)
  local found = turns[route]
  if not found then
    if routes == ROUTES_MAX then turns, routes = {}, 0 end
    found = { count = 0, saved = {} }
    turns[route], routes = found, routes + 1
  end
  return found
end

local function groups_of(members)
  local groups = {}
  for part in gmatch(members, "[^;]+") do
    local group = {}
    for cluster, weight in gmatch(part, "(%S+)=(%d+)") do
      group[#group + 1] = { cluster = cluster, weight = tonumber(weight), place = #group }
    end
    groups[#groups + 1] = group
  end
  return groups
end

local function by_rank(a, b)
  if a.rank ~= b.rank then return a.rank < b.rank end
  return a.place < b.place
end

-- Smooth weighted round robin: each saves its weight, who has saved most is next, and pays for all. With equal weights that is in turn.
local function in_turn(group, saved)
  local total = 0
  for i = 1, #group do
    local member = group[i]
    local has = (saved[member.cluster] or 0) + member.weight
    saved[member.cluster], member.rank = has, -has
    total = total + member.weight
  end
  sort(group, by_rank)
  local next_one = group[1].cluster
  saved[next_one] = saved[next_one] - total
end

-- A product modulo 2^32; that of two whole words would be too long for a number.
local function product(a, b)
  local low = a % 65536
  return ((a - low) / 65536 * b % 65536 * 65536 + low * b) % WORD
end

local function hash_of(text)     -- FNV-1a
  local h = 2166136261
  for i = 1, #text do h = product(bxor(h, byte(text, i)) % WORD, 16777619) end
  return h
end

local function mixed(h)          -- the end of Murmur 3: every bit depends on every other
  h = product(bxor(h, rshift(h, 16)) % WORD, 2246822507)
  h = product(bxor(h, rshift(h, 13)) % WORD, 3266489909)
  return bxor(h, rshift(h, 16)) % WORD
end

-- Weighted rendezvous hashing: each draws a time by the value and its own name, and the soonest is first. Who leaves takes only what was
-- its own along. Whether it is reached through the translator makes no difference.
local function by_value(group, value)
  for i = 1, #group do
    local member = group[i]
    local drawn = mixed(bxor(value, hash_of(match(member.cluster, "^[^~]+"))) % WORD)
    member.rank = -log((drawn + 0.5) / WORD) / member.weight
  end
  sort(group, by_rank)
end

-- The value that a request keeps to a provider by, or nil: the text of the first field that has any. `is_form`: it is bare there.
local function value_of(sticky_by, is_form, s, first, last)
  local fields = FIELDS[sticky_by]
  for i = 1, #fields do
    local from, to = first[fields[i]], last[fields[i]]
    if from and is_form then
      if to >= from then return sub(s, from, to) end
    elseif from and byte(s, from) == QUOTE and to > from + 1 then
      return sub(s, from + 1, to - 1)
    end
  end
  local metadata = sticky_by == "user" and first.metadata
  if metadata and byte(s, metadata) == OPEN_BRACE then
    local inner_first, inner_last = {}, {}
    json.scan_object(s, metadata, IN_METADATA, inner_first, inner_last)
    local from, to = inner_first.user_id, inner_last.user_id
    if from and byte(s, from) == QUOTE and to > from + 1 then return sub(s, from + 1, to - 1) end
  end
end

-- Has the members tried in their order, one after the other. Returns the cluster that is first.
local function set_order(h, groups)
  local order = {}
  for i = 1, #groups do
    for k = 1, #groups[i] do
      local cluster = groups[i][k].cluster
      order[#order + 1] = { name = cluster, clusters = { { cluster_name = cluster, weight = 1 } } }
    end
  end
  h:streamInfo():dynamicMetadata():set(ORDER_NAMESPACE, PRIORITY_GROUPS, order)
  h:clearRouteCache()            -- the route stays the same; the cluster that has been chosen with it may not
  return order[1].name
end

-- Chooses for a request, by the metadata of its route. `read` is the body as reading.lua leaves it, nil where there is none. Returns the
-- cluster that is tried first, or nil where that is as the route says, and why it is.
local function make(h, route, strategy, prepared, is_form, s, read)
  local members, sticky_by = prepared:get("members"), prepared:get("sticky_by")
  if not members then return nil, strategy end
  local groups = groups_of(members)
  local value = sticky_by and read and value_of(sticky_by, is_form, s, read.first, read.last)
  if value then
    value = hash_of(sub(value, 1, VALUE_BYTES_MAX))
    for i = 1, #groups do by_value(groups[i], value) end
    return set_order(h, groups), "sticky"
  end
  local turn = turns_of(route)
  if strategy ~= "lowest_latency" then
    for i = 1, #groups do in_turn(groups[i], turn.saved) end
    return set_order(h, groups), strategy
  end
  -- The route has them in this order.
  local group = groups[1]
  turn.count = turn.count + 1
  if #group == 1 or turn.count % TRIAL_EVERY ~= 0 then return nil, strategy end
  local place = 2 + (turn.count / TRIAL_EVERY - 1) % (#group - 1)
  insert(group, 1, remove(group, place))
  return set_order(h, groups), "trial"
end

return { make = make }
