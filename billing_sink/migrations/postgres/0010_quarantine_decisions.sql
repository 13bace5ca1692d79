-- what: what of a quarantined line could be read, and what a person decides about it (`billing.decide_quarantine`)
-- why: it took SQL by hand, and SQL by hand is how books go wrong
-- running version survives it: yes, what it quarantines has no request beside it and is decided about all the same

-- What could be read of the line, as billing.settle takes it; NULL where that was nothing.
ALTER TABLE billing.quarantine ADD COLUMN request jsonb;

-- One for each quarantined line at most.
CREATE TABLE billing.quarantine_decisions (
    quarantine_id    bigint PRIMARY KEY REFERENCES billing.quarantine,
    decision         text NOT NULL CHECK (decision IN ('charge', 'release')),
    -- What was to be charged; NULL for what was held.
    amount_nano_usd  bigint CHECK (amount_nano_usd > 0),
    charged_nano_usd bigint NOT NULL CHECK (charged_nano_usd >= 0),
    -- What was still held for it and came free; a charge is paid from it first.
    held_nano_usd    bigint NOT NULL CHECK (held_nano_usd >= 0),
    reason           text NOT NULL,
    actor_kind       text NOT NULL,
    actor_id         text NOT NULL,
    decided_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (decision = 'charge' OR (charged_nano_usd = 0 AND amount_nano_usd IS NULL))
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.quarantine_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
