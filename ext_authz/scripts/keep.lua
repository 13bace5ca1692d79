-- A request is still open. KEYS: as in reserve.lua. ARGV: request id; seconds after which it is given up unless it is heard of.
local now, kept_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
redis.call('ZADD', KEYS[2], 'XX', now + kept_s, ARGV[1])
redis.call('EXPIRE', KEYS[2], kept_s + 1)
