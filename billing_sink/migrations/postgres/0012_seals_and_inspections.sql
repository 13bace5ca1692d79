-- what: seals, a chain of hashes over the ledger; inspections, what was found when the books were looked through
-- why: whoever has kept a seal can tell whether anything before it was changed, even past the triggers
-- running version survives it: yes, nobody knows of them

CREATE TABLE billing.seals (
    -- Counts, without gaps.
    seal_id             bigint PRIMARY KEY CHECK (seal_id > 0),
    -- It seals everything behind the seal before, up to and with this.
    last_transaction_id bigint NOT NULL UNIQUE,
    digest              bytea NOT NULL CHECK (octet_length(digest) = 32),
    sealed_at           timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.seals
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();

CREATE TABLE billing.inspections (
    inspected_at timestamptz NOT NULL,
    name         text NOT NULL,
    wrong        bigint NOT NULL CHECK (wrong >= 0),
    example      text,
    PRIMARY KEY (inspected_at, name)
);
