-- Keeps an answer and ends the turn; what was used longest ago makes room: of the same organisation where that has all that it may, else of all.
-- Called once for each answer that is cached.
--
-- What has expired is counted until its place in an order comes: there may be less than the bounds, and never more.
--
-- KEYS: the order in which answers were used (those of one organisation are in the order that has its id behind it, too), how many bytes each
--       has and, under an organisation's id, all of its and, under the empty name, all
-- ARGV: what all names begin with; organisation, name and generation of the question, with colons between; whose turn it is; the answer; for
--       how many milliseconds; how many bytes all may have; how many those of one organisation; how many each counts beside its own
-- Returns how many made room.
local prefix, name, bytes_max, org_bytes_max = ARGV[1], ARGV[2], tonumber(ARGV[6]), tonumber(ARGV[7])
local order, sizes = KEYS[1], KEYS[2]

local function org_of(found) return string.match(found, "^[^:]+") end

-- Adds to what an answer counts, and its organisation's, and all; returns how many bytes the last two have then.
local function count(found, size)
  redis.call("HINCRBY", sizes, found, size)
  return redis.call("HINCRBY", sizes, org_of(found), size), redis.call("HINCRBY", sizes, "", size)
end

-- Removes the answer that was used longest ago in an order; returns the same, or nothing where there is none.
local function make_room(of)
  local oldest = redis.call("ZRANGE", of, 0, 0)[1]
  if not oldest then return 0, 0 end
  redis.call("DEL", prefix .. "answer:" .. oldest)
  redis.call("ZREM", order, oldest)
  redis.call("ZREM", order .. ":" .. org_of(oldest), oldest)
  local org_bytes, all = count(oldest, -(redis.call("HGET", sizes, oldest) or 0))
  redis.call("HDEL", sizes, oldest, org_bytes == 0 and org_of(oldest) or oldest)
  return org_bytes, all
end

local org_order = order .. ":" .. org_of(name)
local now = redis.call("TIME")
local moment = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call("SET", prefix .. "answer:" .. name, ARGV[4], "PX", ARGV[5])
redis.call("ZADD", order, moment, name)
redis.call("ZADD", org_order, moment, name)
local org_bytes, all = count(name, #ARGV[4] + ARGV[8] - (redis.call("HGET", sizes, name) or 0))
local gone = 0
while org_bytes > org_bytes_max do
  org_bytes, all = make_room(org_order)
  gone = gone + 1
end
while all > bytes_max do
  org_bytes, all = make_room(order)
  gone = gone + 1
end
local turn = prefix .. "turn:" .. name
if redis.call("GET", turn) == ARGV[3] then redis.call("DEL", turn) end
return gone
