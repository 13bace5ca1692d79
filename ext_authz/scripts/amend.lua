-- Has requests and tokens count otherwise than was expected, and ends an open request if one is named: then nothing changes if it is not
-- open.
--
-- KEYS: as in reserve.lua. ARGV: request id, or nothing; the second in which they count; how many more requests; how many more tokens, both
-- may be less than none; seconds over which they are counted.
local request_id, at = ARGV[1], tonumber(ARGV[2])
local requests, tokens, window_s = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = tonumber(redis.call('TIME')[1])

local function add(key, kind, more)
  if more == 0 then return end
  local field = kind .. at
  if at > now - window_s and redis.call('HEXISTS', key, field) == 1 then
    redis.call('HINCRBY', key, field, more)
  elseif more > 0 then
    -- What was admitted no longer counts, but it went on using.
    redis.call('HINCRBY', key, kind .. now, more)
    redis.call('EXPIRE', key, window_s + 1)
  end
end

for i = 1, #KEYS, 2 do
  if request_id == '' or redis.call('ZREM', KEYS[i + 1], request_id) == 1 then
    add(KEYS[i], 'r', requests)
    add(KEYS[i], 't', tokens)
  end
end
