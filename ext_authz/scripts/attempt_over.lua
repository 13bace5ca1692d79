-- An attempt at a provider is over, or what it used is known. KEYS: as in attempt.lua, of those what is left, open attempts, and how many are
-- open of each organisation. ARGV: id, or nothing; how many requests and tokens less it counts as, which may be less than none.
-- Of an attempt that is not open nothing changes.
local levels, open, open_by_org = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
if id ~= '' then
  if redis.call('ZREM', open, id) == 0 then return end
  local org = id:match('^[^/]*')
  if redis.call('HINCRBY', open_by_org, org, -1) <= 0 then redis.call('HDEL', open_by_org, org) end
end
-- What a bucket cannot hold it loses when it is looked at.
if redis.call('EXISTS', levels) == 1 then
  redis.call('HINCRBYFLOAT', levels, 'r', ARGV[2])
  redis.call('HINCRBYFLOAT', levels, 't', ARGV[3])
end
