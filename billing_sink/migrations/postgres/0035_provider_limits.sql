-- what: what providers have last said of their limits, and indexes for what was recorded in the last minutes
-- why: who is over its limits, or fails, is given no requests for a while, and that must not read every request
-- running version survives it: yes, it writes none; it waits while the indexes are made, which reads both tables once

-- The latest that a provider has said about a model of its own; of no use once it is past.
CREATE TABLE billing.provider_limits (
    provider           text NOT NULL,
    upstream_model     text NOT NULL,
    told_at            timestamptz NOT NULL,
    -- Of the answer that said so.
    status             integer NOT NULL,
    retry_at           timestamptz,
    requests_remaining bigint,
    requests_reset_at  timestamptz,
    tokens_remaining   bigint,
    tokens_reset_at    timestamptz,
    -- When it can be asked again, by all of that; NULL: it did not say.
    free_at            timestamptz,
    PRIMARY KEY (provider, upstream_model)
);

-- Rows are written in the order of this, so an index of ranges is as good, and costs the ledger next to nothing.
CREATE INDEX requests_recorded ON billing.requests USING brin (recorded_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX attempts_recorded ON billing.attempts USING brin (recorded_at) WITH (pages_per_range = 32, autosummarize = on);
