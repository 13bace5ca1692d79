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

-- What a key and its project have spent moves with the rows of their requests and in no other way. Whoever posts has locked the
-- balance, so nobody waits for another one here.
CREATE OR REPLACE FUNCTION billing.post_spending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.spending AS s (account_id, spender_kind, spender_id, span, begins_at, amount_nano_usd)
    SELECT a.account_id, spender.kind, spender.id, span.name, span.begins_at, sum(r.price_nano_usd - r.absorbed_nano_usd)
    FROM new_requests r
    JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = r.org_id AND a.mode = r.mode
    CROSS JOIN LATERAL (VALUES ('key', r.key_id), ('project', r.project_id)) AS spender (kind, id)
    CROSS JOIN LATERAL (VALUES
        ('quarter', date_bin('15 minutes', r.recorded_at, 'epoch')), ('day', date_trunc('day', r.recorded_at, 'UTC'))
    ) AS span (name, begins_at)
    WHERE r.price_nano_usd > r.absorbed_nano_usd AND spender.id IS NOT NULL
    GROUP BY a.account_id, spender.kind, spender.id, span.name, span.begins_at
    ON CONFLICT (account_id, spender_kind, spender_id, span, begins_at)
        DO UPDATE SET amount_nano_usd = s.amount_nano_usd + excluded.amount_nano_usd;
    RETURN NULL;
END $$;
