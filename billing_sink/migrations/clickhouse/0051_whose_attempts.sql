-- what: whose request a failed attempt was part of, with whose key, and whether its answer was the gateway's own
-- why: one organisation's failures say little of a provider, and what we have answered ourselves nothing
-- running version survives it: yes, it leaves them out
ALTER TABLE attempts
    ADD COLUMN IF NOT EXISTS org_id LowCardinality(String),
    ADD COLUMN IF NOT EXISTS own_key Bool DEFAULT false,
    ADD COLUMN IF NOT EXISTS own_reply Bool DEFAULT false
