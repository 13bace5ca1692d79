-- Counts an attempt at a provider under its limits, or says for how long it may not be made. Atomic, by Redis's own clock.
--
-- KEYS: what is left (hash: `r` requests and `t` tokens, as of `at`; `turned`, `young` and `old` of the next two); what each organisation has
-- had lately, and what before that (hashes: organisation to its part of a minute's limit); open attempts (sorted set: id by the second in
-- which it is given up); how many are open of each organisation (hash).
-- ARGV: organisation; id, which begins with it and a slash; tokens that it is expected to use; seconds after which it is given up unless it is
-- heard of; requests and tokens per minute and attempts at once, each -1 for no limit; which part of a minute is kept.
-- Returns: 1 and 0, or 0 and the seconds after which it may be made.
--
-- Fair: nobody who has had less than its share lately finds everything taken by those who had more. Of what is kept, half is for such
-- organisations alone, and so are the places of which a fifth or less is free, whenever there is more than one that asks.
local levels, young, old, open, open_by_org = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local org, id, tokens, kept_s = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local requests_max, tokens_max, open_max = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local part = tonumber(ARGV[8])
local LATELY_S, FREE_PART, LEVELS_S, MINUTE_S = 5, 0.2, 600, 60

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local state = redis.call('HMGET', levels, 'r', 't', 'at', 'turned', 'young', 'old')
local at, turned = tonumber(state[3]) or now, tonumber(state[4]) or now
local young_sum, old_sum = tonumber(state[5]) or 0, tonumber(state[6]) or 0

-- What was lately is of two spans, one behind the other, of 5 seconds each.
if now - turned >= LATELY_S then
  if now - turned < 2 * LATELY_S and redis.call('EXISTS', young) == 1 then
    redis.call('RENAME', young, old)
    old_sum = young_sum
  else
    redis.call('DEL', young, old)
    old_sum = 0
  end
  young_sum, turned = 0, now
end
local had = tonumber(redis.call('HINCRBYFLOAT', young, org, 0)) + (tonumber(redis.call('HGET', old, org)) or 0)
local active = math.max(redis.call('HLEN', young), redis.call('HLEN', old))
local is_over_share = had * active >= young_sum + old_sum
redis.call('EXPIRE', young, 3 * LATELY_S)

-- Of whom nothing was heard any more.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now)) do
  local whose = gone:match('^[^/]*')
  if redis.call('HINCRBY', open_by_org, whose, -1) <= 0 then redis.call('HDEL', open_by_org, whose) end
  redis.call('ZREM', open, gone)
end

local function level(found, per_minute, most)
  if per_minute < 0 then return 0 end
  return math.min(most, (tonumber(found) or most) + (now - at) * per_minute / MINUTE_S)
end
local requests = level(state[1], requests_max, requests_max / part + 1)
local left = level(state[2], tokens_max, tokens_max / part)

local function keep()
  redis.call('HSET', levels, 'r', requests, 't', left, 'at', string.format('%.4f', now), 'turned', string.format('%.4f', turned),
    'young', young_sum, 'old', old_sum)
  redis.call('EXPIRE', levels, LEVELS_S)
end
local function full(missing, per_minute)
  keep()
  return {0, math.max(1, math.ceil(missing * MINUTE_S / per_minute))}
end

if open_max >= 0 and redis.call('ZCARD', open) >= open_max * (1 - FREE_PART) then
  local mine = tonumber(redis.call('HGET', open_by_org, org)) or 0
  local asking = math.max(active, redis.call('HLEN', open_by_org))
  if asking > 1 and mine >= math.max(1, open_max / asking) then
    keep()
    return {0, 1}
  end
end
local reserve = is_over_share and 0.5 / part or 0
if requests_max >= 0 and requests < 1 + requests_max * reserve then
  return full(1 + requests_max * reserve - requests, requests_max)
end
if tokens_max >= 0 and left <= tokens_max * reserve then return full(tokens_max * reserve - left, tokens_max) end

requests, left = requests - 1, left - tokens
local cost = math.max(requests_max > 0 and 1 / requests_max or 0, tokens_max > 0 and tokens / tokens_max or 0)
redis.call('HINCRBYFLOAT', young, org, cost)
young_sum = young_sum + cost
-- By requests alone nothing is to be put right at its end.
if open_max >= 0 or tokens_max >= 0 then
  redis.call('ZADD', open, now + kept_s, id)
  redis.call('EXPIRE', open, kept_s + 1)
  redis.call('HINCRBY', open_by_org, org, 1)
  redis.call('EXPIRE', open_by_org, kept_s + 1)
end
keep()
return {1, 0}
