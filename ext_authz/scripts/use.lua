-- Counts tokens that were used now, and says whether any tally has none left. Atomic, by Redis's own clock.
--
-- KEYS: what each tally has used, as in reserve.lua. ARGV: tokens; how many of those that count are only reserved for who asks; seconds over which they are counted; then for each tally the tokens it may
-- use in that time, -1 for no limit.
-- Returns: which tally has none left, from 1 (0 for none); then of that: seconds after which it has; requests and tokens that count; seconds
-- until the oldest of them no longer count.
local tokens, reserved, window_s = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(redis.call('TIME')[1])
local LIMITS_FROM = 4

local found = {0, 0, 0, 0, 0}
for i = 1, #KEYS do
  if tokens > 0 then
    redis.call('HINCRBY', KEYS[i], 't' .. now, tokens)
    redis.call('EXPIRE', KEYS[i], window_s + 1)
  end
  local most = tonumber(ARGV[LIMITS_FROM + i - 1])
  if most >= 0 and found[1] == 0 then
    local fields = redis.call('HGETALL', KEYS[i])
    local counted, by_second, oldest = {r = 0, t = 0}, {}, now
    for k = 1, #fields, 2 do
      local kind, second, amount = fields[k]:sub(1, 1), tonumber(fields[k]:sub(2)), tonumber(fields[k + 1])
      if second > now - window_s then
        counted[kind] = counted[kind] + amount
        if kind == 't' then by_second[second] = amount end
        if second < oldest then oldest = second end
      end
    end
    if counted.t - reserved >= most then
      local over, second = counted.t - reserved - most, oldest
      while second < now and over - (by_second[second] or 0) >= 0 do
        over, second = over - (by_second[second] or 0), second + 1
      end
      found = {i, second + window_s - now, counted.r, counted.t, oldest + window_s - now}
    end
  end
end
return found
