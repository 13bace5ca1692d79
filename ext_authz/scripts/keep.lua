-- A request is still open. KEYS: the open requests of each tally, as in reserve.lua. ARGV: request id; seconds after which it is given up
-- unless it is heard of.
local now, kept_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', now + kept_s, ARGV[1])
  redis.call('EXPIRE', KEYS[i], kept_s + 1)
end
