-- Ends an open request of a key, and puts what it used in place of what it was expected to. Changes nothing if it is not open.
--
-- KEYS: as in reserve.lua. ARGV: request id; the second in which it was admitted; tokens that it was expected to use; tokens used;
-- seconds over which they are counted.
local used_key, open_key = KEYS[1], KEYS[2]
local admitted_at, expected, tokens, window_s = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('ZREM', open_key, ARGV[1]) == 0 or tokens == expected then return end

local now = tonumber(redis.call('TIME')[1])
local field = 't' .. admitted_at
if admitted_at > now - window_s and redis.call('HEXISTS', used_key, field) == 1 then
  redis.call('HINCRBY', used_key, field, tokens - expected)
elseif tokens > expected then
  -- What was admitted no longer counts, but it went on using.
  redis.call('HINCRBY', used_key, 't' .. now, tokens - expected)
  redis.call('EXPIRE', used_key, window_s + 1)
end
