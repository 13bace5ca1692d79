-- what: requests added up by the minute (UTC) in which they began
-- why: charts of the last hours read a row for a minute of many requests
-- running version survives it: yes, it does not know of it; the next one begins with everything that is there
-- A minute is added up anew when a request of it arrives, and the newest version of a row counts: read it with FINAL. Durations are
-- counted by their bucket (gateway_core/histograms.py).
CREATE TABLE IF NOT EXISTS requests_by_minute (
    starts_at         DateTime('UTC') CODEC(DoubleDelta, ZSTD),
    org_id            LowCardinality(String),
    project_id        LowCardinality(String),
    key_id            LowCardinality(String),
    mode              LowCardinality(String),
    model             LowCardinality(String),
    provider          LowCardinality(String),
    endpoint          LowCardinality(String),
    status            UInt16,
    error_code        LowCardinality(String),
    outcome           LowCardinality(String),
    stream            Bool,
    cached            Bool,
    own_key           Bool,
    requests          UInt64 CODEC(T64, ZSTD),
    attempts          UInt64 CODEC(T64, ZSTD),
    meters            Map(LowCardinality(String), UInt64) CODEC(ZSTD),
    cost_nano_usd     Int64 CODEC(T64, ZSTD),
    price_nano_usd    Int64 CODEC(T64, ZSTD),
    absorbed_nano_usd Int64 CODEC(T64, ZSTD),
    duration_ms       Map(UInt16, UInt64) CODEC(ZSTD),
    first_byte_ms     Map(UInt16, UInt64) CODEC(ZSTD),
    output_token_us   Map(UInt16, UInt64) CODEC(ZSTD),
    overhead_us       Map(UInt16, UInt64) CODEC(ZSTD),
    version           UInt128 CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (org_id, starts_at, project_id, key_id, mode, model, provider, endpoint, status, error_code, outcome, stream, cached, own_key)
