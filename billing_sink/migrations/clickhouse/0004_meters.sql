-- what: every meter by its name, and the service tier
-- why: a meter that is new needs no column; a tier has prices of its own
-- running version survives it: yes, it leaves the meters empty and the tier standard
ALTER TABLE requests
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String) DEFAULT 'standard' AFTER mode,
    ADD COLUMN IF NOT EXISTS meters Map(LowCardinality(String), UInt64) AFTER service_tier
