-- what: invoices, one for each organisation and month in which money moved
-- why: finance wants a month that is closed and does not change any more
-- running version survives it: yes, nobody knows of them

-- An invoice is a stretch of an organisation's part of the ledger: what was posted behind after_transaction_id, up to and with
-- last_transaction_id. The next one begins where it ends, so everything is on one invoice, and on one only.
CREATE TABLE billing.invoices (
    invoice_id           text PRIMARY KEY,
    org_id               text NOT NULL,
    -- Counts the organisation's invoices, without gaps.
    number               integer NOT NULL CHECK (number > 0),
    month                date NOT NULL CHECK (extract(day FROM month) = 1),
    -- In which the month began and ended.
    time_zone            text NOT NULL,
    ends_at              timestamptz NOT NULL,
    after_transaction_id bigint NOT NULL,
    last_transaction_id  bigint NOT NULL CHECK (last_transaction_id > after_transaction_id),
    -- What the organisation had, less what it owed, before and after.
    opening_nano_usd     bigint NOT NULL,
    closing_nano_usd     bigint NOT NULL,
    -- As billing.statement told it when the invoice was closed.
    lines                jsonb NOT NULL,
    closed_at            timestamptz NOT NULL,
    UNIQUE (org_id, number),
    UNIQUE (org_id, month)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.invoices
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
