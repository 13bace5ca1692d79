-- Admits requests under the limits of some tallies, or says which limit is in the way. Atomic, by Redis's own clock.
--
-- KEYS, two for each tally: what it has used, by the second (hash: `r<second>` requests, `t<second>` tokens); its open requests (sorted
-- set: id by the second in which it is given up).
-- ARGV: request id; how many requests like it, itself among them; tokens that each is expected to use; seconds after which it is given up
-- unless it is heard of; seconds over which requests and tokens are counted, the one that has begun among them; which part of what is left the
-- requests beside it may be; the second in which they are to count, or nothing for this one; then three for each tally: requests
-- and tokens per minute and requests at once, each -1 for no limit.
-- Returns: which limit is in the way (0 none, 1 requests, 2 tokens, 3 at once); of which tally, from 1; seconds after which it no longer
-- is; the second in which the requests count; how many they are; then three for each tally: requests and tokens that count; seconds until the
-- oldest of them no longer count. Of more requests than one it may admit fewer than were asked for. Only the first of them is open.
local request_id, uses, tokens = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local kept_s, window_s, part = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
local at = ARGV[7] ~= '' and tonumber(ARGV[7]) or now
local TALLY_FROM = 8

local tallies = {}
for i = 1, #KEYS, 2 do
  local limits = TALLY_FROM + (i - 1) / 2 * 3
  local tally = {
    used_key = KEYS[i], open_key = KEYS[i + 1], used = {r = {}, t = {}}, r = 0, t = 0, oldest = now,
    requests_max = tonumber(ARGV[limits]), tokens_max = tonumber(ARGV[limits + 1]), open_max = tonumber(ARGV[limits + 2]),
  }
  local fields = redis.call('HGETALL', tally.used_key)
  for k = 1, #fields, 2 do
    local kind, second, amount = fields[k]:sub(1, 1), tonumber(fields[k]:sub(2)), tonumber(fields[k + 1])
    if second <= now - window_s then
      redis.call('HDEL', tally.used_key, fields[k])
    else
      tally.used[kind][second], tally[kind] = amount, tally[kind] + amount
      if second < tally.oldest then tally.oldest = second end
    end
  end
  redis.call('ZREMRANGEBYSCORE', tally.open_key, '-inf', now)
  tallies[#tallies + 1] = tally
end

local function answer(limit, which, wait_s, when, admitted)
  local found = {limit, which, wait_s, when, admitted}
  for i = 1, #tallies do
    local tally = tallies[i]
    found[#found + 1] = tally.r
    found[#found + 1] = tally.t
    found[#found + 1] = tally.oldest + window_s - now
  end
  return found
end

-- Asked again by an Envoy that got no answer: it is admitted already, and counts when it did.
local given_up_at = redis.call('ZSCORE', tallies[1].open_key, request_id)
if given_up_at then return answer(0, 0, 0, tonumber(given_up_at) - kept_s, 1) end

-- The seconds until so much no longer counts that the request fits, if all of a kind that is used counts against a maximum.
local function wait_s(tally, kind, more, most)
  local over = tally[kind] + more - most
  for second = tally.oldest, now do
    over = over - (tally.used[kind][second] or 0)
    if over <= 0 then return second + window_s - now end
  end
  return window_s
end

-- How many requests there may be, the first among them, when all beside it have to share a part of what is left.
local function may_be(most, counted, each)
  if each == 0 then return uses end
  return 1 + math.floor((most - counted - each) / each / part)
end

for i = 1, #tallies do
  local tally = tallies[i]
  if tally.requests_max >= 0 then
    if tally.r + 1 > tally.requests_max then return answer(1, i, wait_s(tally, 'r', 1, tally.requests_max), at, 0) end
    uses = math.min(uses, may_be(tally.requests_max, tally.r, 1))
  end
  if tally.tokens_max >= 0 then
    if tally.t + tokens > tally.tokens_max then return answer(2, i, wait_s(tally, 't', tokens, tally.tokens_max), at, 0) end
    uses = math.min(uses, may_be(tally.tokens_max, tally.t, tokens))
  end
  if tally.open_max >= 0 then
    if redis.call('ZCARD', tally.open_key) >= tally.open_max then return answer(3, i, 1, at, 0) end
    uses = 1
  end
end

for i = 1, #tallies do
  local tally = tallies[i]
  redis.call('HINCRBY', tally.used_key, 'r' .. at, uses)
  redis.call('HINCRBY', tally.used_key, 't' .. at, uses * tokens)
  redis.call('EXPIRE', tally.used_key, window_s + 1)
  redis.call('ZADD', tally.open_key, at + kept_s, request_id)
  redis.call('EXPIRE', tally.open_key, kept_s + 1)
  tally.r, tally.t = tally.r + uses, tally.t + uses * tokens
end
return answer(0, 0, 0, at, uses)
