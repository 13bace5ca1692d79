-- what: a row for each state that a provider, or one of its models, has come into
-- why: how long who was out, and why, beside what requests came to meanwhile
-- running version survives it: yes, it writes none
-- A state that was inserted twice collapses: read it with FINAL.
CREATE TABLE IF NOT EXISTS provider_health (
    seq            UInt64,
    since          DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    until          Nullable(DateTime64(3, 'UTC')),
    provider       LowCardinality(String),
    upstream_model LowCardinality(String),
    condition      LowCardinality(String),
    why            String,
    times          UInt32,
    actor_kind     LowCardinality(String),
    actor_id       String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(since)
ORDER BY (provider, since, seq)
