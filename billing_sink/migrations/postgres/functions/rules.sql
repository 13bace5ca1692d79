-- Rows stay as they were written.
CREATE OR REPLACE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'billing.% is append-only', TG_TABLE_NAME;
END $$;

-- All entries of a transaction are written by one statement, so one look at that statement's rows suffices.
CREATE OR REPLACE FUNCTION billing.refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
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

-- An account's posted sum moves with its entries and in no other way.
CREATE OR REPLACE FUNCTION billing.post_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE billing.accounts a SET posted_nano_usd = a.posted_nano_usd + e.amount
    FROM (SELECT account_id, sum(amount_nano_usd)::bigint AS amount FROM new_entries GROUP BY account_id) e
    WHERE a.account_id = e.account_id;
    RETURN NULL;
END $$;
