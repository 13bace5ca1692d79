-- Prolongs a turn, ends it, or puts in its place that the answer was not to be cached; nothing, if it is not the caller's any more.
--
-- KEYS: the turn
-- ARGV: whose it is; what to do, `stay`, `end` or `-`; for how many milliseconds
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == "stay" then return redis.call("PEXPIRE", KEYS[1], ARGV[3]) end
if ARGV[2] == "end" then return redis.call("DEL", KEYS[1]) end
redis.call("SET", KEYS[1], "-", "PX", ARGV[3])
return 1
