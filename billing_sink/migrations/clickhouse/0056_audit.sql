-- what: who changed what and when; not from what to what, which stays in Postgres
-- why: a change beside what came of it, in one place
-- running version survives it: yes, it writes none
-- An entry that was inserted twice collapses: read it with FINAL.
CREATE TABLE IF NOT EXISTS audit (
    seq        UInt64,
    at         DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    org_id     LowCardinality(String),
    actor_kind LowCardinality(String),
    actor_id   String,
    action     LowCardinality(String),
    target_id  String,
    request_id String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (org_id, at, seq)
