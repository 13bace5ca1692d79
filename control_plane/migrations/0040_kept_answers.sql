-- what: how long the answers of a route are kept
-- why: a request that was answered before need not be answered by a provider again
-- running version survives it: yes, it keeps none

-- NULL: only where a client asks for it. 0: never.
ALTER TABLE catalog.routes ADD COLUMN cache_ttl_s integer CHECK (cache_ttl_s BETWEEN 0 AND 2592000);
