-- what: one row per finished request, for Grafana and analysts
-- why: a reader of billing.requests in Postgres; dropped and refilled at will, nothing is billed from it
-- running version survives it: yes, nothing ran before
-- A request that was inserted twice collapses: read it with FINAL.
CREATE TABLE IF NOT EXISTS requests (
    request_id            String,
    started_at            DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    recorded_at           DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    outcome               LowCardinality(String),
    late                  Bool,
    usage_source          LowCardinality(String),
    org_id                LowCardinality(String),
    project_id            LowCardinality(String),
    key_id                LowCardinality(String),
    endpoint              LowCardinality(String),
    model                 LowCardinality(String),
    provider              LowCardinality(String),
    stream                Bool,
    status                UInt16,
    error_code            LowCardinality(String),
    attempts              UInt32,
    duration_ms           UInt64,
    first_byte_ms         Nullable(UInt64),
    bytes_received        UInt64,
    bytes_sent            UInt64,
    sse_events            UInt32,
    input_tokens          UInt64,
    cached_input_tokens   UInt64,
    cache_write_5m_tokens UInt64,
    cache_write_1h_tokens UInt64,
    output_tokens         UInt64,
    reasoning_tokens      UInt64,
    audio_input_tokens    UInt64,
    audio_output_tokens   UInt64,
    cost_nano_usd         Int64,
    price_nano_usd        Int64,
    absorbed_nano_usd     Int64,
    client_request_id     String,
    user_agent            String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (org_id, started_at, request_id)
