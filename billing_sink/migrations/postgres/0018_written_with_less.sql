-- what: triggers look at all entries of a statement together in place of foreign keys; billing.spending has a row for each day
-- why: half of what it took Postgres to post a request of an organisation that no other request of the batch was of
-- running version survives it: yes, it writes through functions and triggers, which are replaced with it

-- In the order in which writers take them, so that nobody waits in a circle.
SELECT pg_advisory_xact_lock(hashtext('billing.settle'));
LOCK TABLE billing.accounts, billing.requests, billing.spending, billing.transactions, billing.entries IN ACCESS EXCLUSIVE MODE;

-- billing.refuse_unbalanced and billing.post_entries look, in functions/rules.sql.
ALTER TABLE billing.entries
    DROP CONSTRAINT entries_transaction_id_mode_fkey,
    DROP CONSTRAINT entries_account_id_mode_fkey;
ALTER TABLE billing.transactions DROP CONSTRAINT transactions_transaction_id_mode_key;
-- Room in its pages: what is updated with every batch stays in the page that its index says.
ALTER TABLE billing.accounts DROP CONSTRAINT accounts_account_id_mode_key, SET (fillfactor = 50);
ALTER TABLE billing.slices SET (fillfactor = 50);

-- Transactions cannot go, and accounts cannot from here on, so what was looked at once stays true.
-- Here only because the trigger needs one of its name.
CREATE FUNCTION billing.refuse_other_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER stays BEFORE UPDATE OF account_id, kind, org_id, mode OR DELETE OR TRUNCATE ON billing.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_other_account();

-- What a key or a project has paid on a day of UTC. Only billing.post_spending writes it, for balances that it has just read.
ALTER TABLE billing.spending RENAME TO spending_of_before;
ALTER TABLE billing.spending_of_before RENAME CONSTRAINT spending_pkey TO spending_of_before_pkey;
CREATE TABLE billing.spending (
    -- The balance that has paid: of an organisation, in a mode.
    account_id      bigint NOT NULL,
    spender_kind    text NOT NULL CHECK (spender_kind IN ('key', 'project')),
    spender_id      text NOT NULL,
    day             date NOT NULL,
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd > 0),
    -- The same by quarters of an hour; the first one of the day is quarters[1]. NULL where nothing was paid.
    quarters        bigint[] NOT NULL,
    PRIMARY KEY (account_id, spender_kind, spender_id, day)
) WITH (fillfactor = 50);
INSERT INTO billing.spending (account_id, spender_kind, spender_id, day, amount_nano_usd, quarters)
SELECT d.account_id, d.spender_kind, d.spender_id, (d.begins_at AT TIME ZONE 'UTC')::date, d.amount_nano_usd, (
    SELECT array_agg(q.amount_nano_usd ORDER BY n)
    FROM generate_series(0, 95) n
    LEFT JOIN billing.spending_of_before q
        ON (q.account_id, q.spender_kind, q.spender_id, q.span) = (d.account_id, d.spender_kind, d.spender_id, 'quarter')
        AND q.begins_at = d.begins_at + n * interval '15 minutes')
FROM billing.spending_of_before d WHERE d.span = 'day';
DROP TABLE billing.spending_of_before;
