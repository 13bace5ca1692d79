-- what: what the client called its model, the provider's own name of it, the client's program, its cost tags, and two more durations
-- why: analysts group by them; what the gateway adds and how fast a model writes are not in the total
-- running version survives it: yes, it leaves them empty; `tollgate analytics rebuild` fills them for rows of before
-- output_token_us: from the first byte to the last, by the tokens that were written after the first.
ALTER TABLE requests
    ADD COLUMN IF NOT EXISTS asked_model LowCardinality(String),
    ADD COLUMN IF NOT EXISTS upstream_model LowCardinality(String),
    ADD COLUMN IF NOT EXISTS client LowCardinality(String),
    ADD COLUMN IF NOT EXISTS tags Map(LowCardinality(String), String),
    ADD COLUMN IF NOT EXISTS output_token_us Nullable(UInt64),
    ADD COLUMN IF NOT EXISTS overhead_us Nullable(UInt64)
