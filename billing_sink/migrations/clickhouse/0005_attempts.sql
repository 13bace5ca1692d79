-- what: one row per attempt at an upstream that failed, for Grafana and analysts
-- why: which provider fails how often, and in which way
-- running version survives it: yes, it writes none
-- An attempt that was inserted twice collapses: read it with FINAL.
CREATE TABLE IF NOT EXISTS attempts (
    request_id       String,
    started_at       DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD),
    recorded_at      DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    provider         LowCardinality(String),
    upstream_model   LowCardinality(String),
    host             LowCardinality(String),
    status           UInt16,
    response_flags   LowCardinality(String),
    response_details LowCardinality(String),
    duration_ms      UInt64,
    bytes_received   UInt64,
    bytes_sent       UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (started_at, request_id)
