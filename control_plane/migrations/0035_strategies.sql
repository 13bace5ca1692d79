-- what: by what a route chooses among the providers of a group, what keeps a request to one of them, and how fast providers have been
-- why: drawing by weight is one way of several
-- running version survives it: yes, its routes are drawn by weight, and it leaves the rest out
ALTER TABLE catalog.routes
    ADD COLUMN strategy text NOT NULL DEFAULT 'weighted'
        CHECK (strategy IN ('weighted', 'round_robin', 'lowest_cost', 'lowest_latency')),
    ADD COLUMN sticky_by text CHECK (sticky_by IN ('user', 'prompt_cache_key'));

-- Milliseconds to the first byte of an answer, of deployments on routes that go by them. No part of the catalogue's history: nobody edits it.
CREATE TABLE catalog.first_bytes (
    model       text NOT NULL,
    provider    text NOT NULL,
    -- The rolling figure, and the one that orders providers: that follows only what is well away from it, so that no order flaps.
    rolling_ms  double precision NOT NULL CHECK (rolling_ms > 0),
    in_force_ms integer NOT NULL CHECK (in_force_ms > 0),
    measured_at timestamptz NOT NULL,
    PRIMARY KEY (model, provider)
);

-- What they are taken of.
CREATE VIEW catalog.going_by_speed AS
    SELECT DISTINCT s.model, s.provider FROM catalog.served s JOIN catalog.routes r ON r.name = s.route
    WHERE r.strategy = 'lowest_latency';

-- Up to where billing.requests has been looked at for them. One row, locked by whoever looks.
CREATE TABLE catalog.first_bytes_seen (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    written_by xid8 NOT NULL,
    seq        bigint NOT NULL
);
INSERT INTO catalog.first_bytes_seen (written_by, seq) VALUES ('0', 0);
