-- what: one row for each attempt at an upstream that failed
-- why: to say why a request went where it went; the attempt that did not fail is in the request's own row
-- running version survives it: yes; lines about attempts, which come with a newer control plane, it would quarantine

CREATE TABLE billing.attempts (
    seq              bigint GENERATED ALWAYS AS IDENTITY,
    -- For readers that must not miss a transaction that commits late.
    written_by       xid8 NOT NULL DEFAULT pg_current_xact_id(),
    request_id       text NOT NULL,
    started_at       timestamptz NOT NULL,
    input_hash       bytea NOT NULL,
    -- NULL where it was none: the simulator, the control plane.
    provider         text,
    upstream_model   text,
    host             text,
    -- 0 where there was no answer.
    status           integer NOT NULL,
    response_flags   text,
    response_details text,
    duration_ms      bigint NOT NULL,
    bytes_received   bigint NOT NULL,
    bytes_sent       bigint NOT NULL,
    recorded_at      timestamptz NOT NULL DEFAULT now(),
    -- The attempts of a request come one after the other. The request may not be there yet, and need never be.
    PRIMARY KEY (request_id, started_at)
);
CREATE INDEX attempts_in_commit_order ON billing.attempts (written_by, seq);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.attempts
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
