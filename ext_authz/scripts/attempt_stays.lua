-- An attempt at a provider is still open. KEYS: open attempts, and how many are open of each organisation, as in attempt.lua. ARGV: id; seconds
-- after which it is given up unless it is heard of.
local now, kept_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], 'XX', now + kept_s, ARGV[1])
redis.call('EXPIRE', KEYS[1], kept_s + 1)
redis.call('EXPIRE', KEYS[2], kept_s + 1)
