-- Keeps an answer and ends the turn; what was used longest ago makes room. Called once for each answer that is kept.
--
-- What has expired is counted until its place in the order comes: there may be less than the bound, and never more.
--
-- KEYS: the order in which answers were used, how many bytes each has and, under the empty name, all of them
-- ARGV: what all names begin with, name and generation of the question, whose turn it is, the answer, for how many milliseconds, how many bytes
--       all may have, how many each counts beside its own
-- Returns how many made room.
local prefix, name, bytes_max = ARGV[1], ARGV[2], tonumber(ARGV[6])
local size = #ARGV[4] + ARGV[7]
local now = redis.call("TIME")
redis.call("SET", prefix .. "answer:" .. name, ARGV[4], "PX", ARGV[5])
redis.call("ZADD", KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), name)
local all = redis.call("HINCRBY", KEYS[2], "", size - (redis.call("HGET", KEYS[2], name) or 0))
redis.call("HSET", KEYS[2], name, size)
local gone = 0
while all > bytes_max do
  local oldest = redis.call("ZPOPMIN", KEYS[1])[1]
  if not oldest then break end
  redis.call("DEL", prefix .. "answer:" .. oldest)
  all = redis.call("HINCRBY", KEYS[2], "", -(redis.call("HGET", KEYS[2], oldest) or 0))
  redis.call("HDEL", KEYS[2], oldest)
  gone = gone + 1
end
local turn = prefix .. "turn:" .. name
if redis.call("GET", turn) == ARGV[3] then redis.call("DEL", turn) end
return gone
