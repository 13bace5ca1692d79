-- Looks for an answer; where there is none, takes the turn to get it, unless somebody has that. Called for each question.
--
-- KEYS: the organisation's generation, the order in which answers were used, the order of the organisation's own
-- ARGV: what all names begin with, the question's name behind its organisation's id, whose turn it would be, for how many milliseconds
-- Returns the generation and: the answer; or 1, it is the caller's turn; 2, it is somebody else's; 3, an answer was not to be cached a moment ago
local generation = redis.call("GET", KEYS[1]) or "0"
local name = ARGV[2] .. ":" .. generation
local answer = redis.call("GET", ARGV[1] .. "answer:" .. name)
if answer then
  local now = redis.call("TIME")
  local moment = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call("ZADD", KEYS[2], "XX", moment, name)
  redis.call("ZADD", KEYS[3], "XX", moment, name)
  return { generation, answer }
end
local turn = ARGV[1] .. "turn:" .. name
if redis.call("SET", turn, ARGV[3], "NX", "PX", ARGV[4]) then return { generation, 1 } end
return { generation, redis.call("GET", turn) == "-" and 3 or 2 }
