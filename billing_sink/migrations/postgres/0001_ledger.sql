-- what: accounts, holds, the double-entry ledger, finished requests, spool offsets, quarantine, export cursor
-- why: the money; every invariant of it is kept here, whatever the callers do
-- running version survives it: yes, nothing ran before
CREATE SCHEMA billing;

-- Amounts are nano-USD (1e-9 USD). A balance is what we owe a tenant, so a top-up adds to it and usage takes from it.
CREATE TABLE billing.accounts (
    account_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('balance', 'revenue', 'funding', 'platform_absorbed')),
    org_id          text,
    posted_nano_usd bigint NOT NULL DEFAULT 0,
    held_nano_usd   bigint NOT NULL DEFAULT 0 CHECK (held_nano_usd >= 0),
    CHECK ((kind = 'balance') = (org_id IS NOT NULL)),
    -- A balance never goes below zero, and never promises the same money twice.
    CHECK (kind <> 'balance' OR posted_nano_usd - held_nano_usd >= 0),
    UNIQUE NULLS NOT DISTINCT (kind, org_id)
);
INSERT INTO billing.accounts (kind) VALUES ('revenue'), ('funding'), ('platform_absorbed');

CREATE TABLE billing.transactions (
    transaction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('usage', 'credit')),
    request_id     text UNIQUE,
    reason         text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'usage') = (request_id IS NOT NULL))
);

CREATE TABLE billing.entries (
    transaction_id  bigint NOT NULL REFERENCES billing.transactions,
    account_id      bigint NOT NULL REFERENCES billing.accounts,
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd <> 0),
    PRIMARY KEY (transaction_id, account_id)
);
CREATE INDEX entries_of_account ON billing.entries (account_id);

-- Money set aside for a request before it is sent to a provider. Exactly one outcome each.
CREATE TABLE billing.holds (
    request_id      text PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES billing.accounts,
    key_id          text NOT NULL,
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd >= 0),
    state           text NOT NULL DEFAULT 'held'
                    CHECK (state IN ('held', 'settled', 'released', 'estimated', 'expired')),
    placed_at       timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    CHECK ((state = 'held') = (finished_at IS NULL))
);
CREATE INDEX holds_open ON billing.holds (expires_at) WHERE state = 'held';

-- One row per finished request of any outcome, refusals included.
CREATE TABLE billing.requests (
    request_id         text PRIMARY KEY,
    seq                bigint GENERATED ALWAYS AS IDENTITY,
    -- Rows become visible in another order than they are numbered; readers go by transaction first.
    written_by         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    input_hash         bytea NOT NULL,
    outcome            text NOT NULL CHECK (outcome IN ('settled', 'released', 'estimated', 'refused', 'free')),
    late               boolean NOT NULL DEFAULT false,
    usage_source       text NOT NULL CHECK (usage_source IN ('provider', 'estimated', 'none')),
    org_id             text,
    project_id         text,
    key_id             text,
    endpoint           text,
    model              text,
    provider           text,
    price_version      bigint,
    stream             boolean NOT NULL,
    status             integer NOT NULL,
    error_code         text,
    response_flags     text,
    response_details   text,
    attempts           integer NOT NULL,
    client_request_id  text,
    user_agent         text,
    started_at         timestamptz NOT NULL,
    duration_ms        bigint NOT NULL,
    first_byte_ms      bigint,
    bytes_received     bigint NOT NULL,
    bytes_sent         bigint NOT NULL,
    sse_events         integer NOT NULL,
    meters             jsonb NOT NULL,
    cost_nano_usd      bigint NOT NULL CHECK (cost_nano_usd >= 0),
    price_nano_usd     bigint NOT NULL CHECK (price_nano_usd >= 0),
    absorbed_nano_usd  bigint NOT NULL CHECK (absorbed_nano_usd BETWEEN 0 AND price_nano_usd),
    -- The provider's own words, so that any charge can be derived again.
    usage_raw          jsonb,
    recorded_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX requests_in_commit_order ON billing.requests (written_by, seq);
CREATE INDEX requests_of_org ON billing.requests (org_id, started_at);

-- How far each spool file has been read. Moved in the transaction that writes what was read.
CREATE TABLE billing.spool_offsets (
    spool_id    text PRIMARY KEY,
    byte_offset bigint NOT NULL CHECK (byte_offset >= 0),
    moved_at    timestamptz NOT NULL DEFAULT now()
);

-- Spool lines that could not become a row of billing.requests, whole, with the reason.
CREATE TABLE billing.quarantine (
    quarantine_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool_id       text NOT NULL,
    byte_offset    bigint NOT NULL,
    request_id     text,
    reason         text NOT NULL,
    line           bytea NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (spool_id, byte_offset, reason)
);
CREATE INDEX quarantine_of_request ON billing.quarantine (request_id);

CREATE TABLE billing.export_cursors (
    name       text PRIMARY KEY,
    written_by xid8 NOT NULL,
    seq        bigint NOT NULL
);

CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'billing.% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.transactions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.entries
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.requests
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();

-- All entries of a transaction are written by one statement, so one look at that statement's rows suffices.
CREATE FUNCTION billing.refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_transaction bigint;
BEGIN
    SELECT transaction_id INTO v_transaction FROM new_entries
    GROUP BY transaction_id HAVING sum(amount_nano_usd) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entries of transaction % do not sum to zero', v_transaction;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON billing.entries
    REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_unbalanced();

-- An account's posted sum moves with its entries and in no other way.
CREATE FUNCTION billing.post_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE billing.accounts a SET posted_nano_usd = a.posted_nano_usd + e.amount
    FROM (SELECT account_id, sum(amount_nano_usd)::bigint AS amount FROM new_entries GROUP BY account_id) e
    WHERE a.account_id = e.account_id;
    RETURN NULL;
END $$;
CREATE TRIGGER posted AFTER INSERT ON billing.entries
    REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION billing.post_entries();

CREATE FUNCTION billing.open_balance(p_org_id text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO billing.accounts (kind, org_id) VALUES ('balance', p_org_id) RETURNING account_id;
$$;

-- Adds money to a balance. Returns the transaction.
CREATE FUNCTION billing.credit(p_org_id text, p_amount_nano_usd bigint, p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_transaction bigint;
BEGIN
    IF p_amount_nano_usd <= 0 THEN
        RAISE EXCEPTION 'a credit is more than zero';
    END IF;
    -- In the order of account_id, like every writer of more than one balance.
    PERFORM FROM billing.accounts
        WHERE kind = 'funding' OR (kind = 'balance' AND org_id = p_org_id) ORDER BY account_id FOR UPDATE;
    IF NOT EXISTS (SELECT FROM billing.accounts WHERE kind = 'balance' AND org_id = p_org_id) THEN
        RAISE EXCEPTION 'organisation % has no balance', p_org_id;
    END IF;
    INSERT INTO billing.transactions (kind, reason) VALUES ('credit', p_reason) RETURNING transaction_id INTO v_transaction;
    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd)
    SELECT v_transaction, account_id, CASE kind WHEN 'balance' THEN p_amount_nano_usd ELSE -p_amount_nano_usd END
    FROM billing.accounts WHERE kind = 'funding' OR (kind = 'balance' AND org_id = p_org_id);
    RETURN v_transaction;
END $$;

-- Sets money aside for a request. True if the balance covers it; false, and nothing changed, if not.
CREATE FUNCTION billing.place_hold(
    p_request_id text, p_org_id text, p_key_id text, p_amount_nano_usd bigint, p_expires_at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
BEGIN
    UPDATE billing.accounts SET held_nano_usd = held_nano_usd + p_amount_nano_usd
    WHERE kind = 'balance' AND org_id = p_org_id AND posted_nano_usd > 0
      AND posted_nano_usd - held_nano_usd >= p_amount_nano_usd
    RETURNING account_id INTO v_account;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO billing.holds (request_id, account_id, key_id, amount_nano_usd, expires_at)
    VALUES (p_request_id, v_account, p_key_id, p_amount_nano_usd, p_expires_at);
    RETURN true;
END $$;
