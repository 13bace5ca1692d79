-- Admits a request under the limits of a key, or says which of them is in the way. Atomic, by Redis's own clock.
--
-- KEYS: what the key has used, by the second (hash: `r<second>` requests, `t<second>` tokens); its open requests (sorted set: id by
-- the second in which it is given up).
-- ARGV: request id; requests and tokens per minute and requests at once, each -1 for no limit; tokens that the request is expected
-- to use; seconds after which it is given up unless it is heard of; seconds over which requests and tokens are counted, the one that has
-- begun among them.
-- Returns: which limit is in the way (0 none, 1 requests, 2 tokens, 3 at once); seconds after which it no longer is; the second
-- in which the request counts; requests and tokens that count; seconds until the oldest of them no longer count.
local used_key, open_key, request_id = KEYS[1], KEYS[2], ARGV[1]
local requests_max, tokens_max, open_max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, kept_s, window_s = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local now = tonumber(redis.call('TIME')[1])

local used, total, oldest = {r = {}, t = {}}, {r = 0, t = 0}, now
local fields = redis.call('HGETALL', used_key)
for i = 1, #fields, 2 do
  local kind, second, amount = fields[i]:sub(1, 1), tonumber(fields[i]:sub(2)), tonumber(fields[i + 1])
  if second <= now - window_s then
    redis.call('HDEL', used_key, fields[i])
  else
    used[kind][second], total[kind] = amount, total[kind] + amount
    if second < oldest then oldest = second end
  end
end

local function answer(limit, wait_s, at)
  return {limit, wait_s, at or now, total.r, total.t, oldest + window_s - now}
end

redis.call('ZREMRANGEBYSCORE', open_key, '-inf', now)
-- Asked again by an Envoy that got no answer: it is admitted already, and counts when it did.
local given_up_at = redis.call('ZSCORE', open_key, request_id)
if given_up_at then return answer(0, 0, tonumber(given_up_at) - kept_s) end

-- The seconds until so much no longer counts that the request fits, if all of a kind that is used counts against a maximum.
local function wait_s(kind, more, most)
  local over = total[kind] + more - most
  for second = oldest, now do
    over = over - (used[kind][second] or 0)
    if over <= 0 then return second + window_s - now end
  end
  return window_s
end

if requests_max >= 0 and total.r + 1 > requests_max then return answer(1, wait_s('r', 1, requests_max)) end
if tokens_max >= 0 and total.t + tokens > tokens_max then return answer(2, wait_s('t', tokens, tokens_max)) end
if open_max >= 0 and redis.call('ZCARD', open_key) >= open_max then return answer(3, 1) end

redis.call('HINCRBY', used_key, 'r' .. now, 1)
redis.call('HINCRBY', used_key, 't' .. now, tokens)
redis.call('EXPIRE', used_key, window_s + 1)
redis.call('ZADD', open_key, now + kept_s, request_id)
redis.call('EXPIRE', open_key, kept_s + 1)
total.r, total.t = total.r + 1, total.t + tokens
return answer(0, 0)
