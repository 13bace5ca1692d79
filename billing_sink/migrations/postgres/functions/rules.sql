-- Rows stay as they were written.
CREATE OR REPLACE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'billing.% is append-only', TG_TABLE_NAME;
END $$;

-- Money has gone into an account and out of it under its name. What entries and holds say of an account stays true.
CREATE OR REPLACE FUNCTION billing.refuse_other_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE integrity_constraint_violation USING MESSAGE = 'an account stays what it is';
END $$;

-- All entries of a transaction are written by one statement, so one look at that statement's rows suffices. Transactions are append-only,
-- so one that is there stays. It is asked for each by itself, so that no plan reads all of them.
CREATE OR REPLACE FUNCTION billing.refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_wrong record;
BEGIN
    SELECT transaction_id, sum(amount_nano_usd) AS amount INTO v_wrong FROM new_entries e
    GROUP BY transaction_id
    HAVING sum(amount_nano_usd) <> 0 OR min(mode) <> max(mode)
        OR min(mode) IS DISTINCT FROM (SELECT t.mode FROM billing.transactions t WHERE t.transaction_id = e.transaction_id)
    LIMIT 1;
    IF v_wrong.amount <> 0 THEN
        RAISE EXCEPTION 'entries of transaction % do not sum to zero', v_wrong.transaction_id;
    ELSIF FOUND THEN
        RAISE integrity_constraint_violation USING
            MESSAGE = format('entries of transaction %s, which is not there or of another mode', v_wrong.transaction_id);
    END IF;
    RETURN NULL;
END $$;

-- An account's posted sum moves with its entries and in no other way. Accounts stay what they are, so one that is there stays.
CREATE OR REPLACE FUNCTION billing.post_entries() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_stray bigint;
BEGIN
    WITH moved AS (
        SELECT account_id, mode, sum(amount_nano_usd)::bigint AS amount FROM new_entries GROUP BY account_id, mode
    ), posted AS (
        UPDATE billing.accounts a SET posted_nano_usd = a.posted_nano_usd + m.amount
        FROM moved m WHERE a.account_id = m.account_id AND a.mode = m.mode
        RETURNING a.account_id, a.mode
    )
    SELECT account_id INTO v_stray FROM (SELECT account_id, mode FROM moved EXCEPT SELECT account_id, mode FROM posted) stray LIMIT 1;
    IF FOUND THEN
        RAISE integrity_constraint_violation USING
            MESSAGE = format('entries of account %s, which is not there or of another mode', v_stray);
    END IF;
    RETURN NULL;
END $$;

-- Which of a day's quarters of an hour in UTC a moment is in: 1 to 96.
CREATE OR REPLACE FUNCTION billing.quarter_of(p_moment timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT floor(extract(epoch FROM p_moment) / 900)::bigint % 96 + 1;
$$;

-- What a key and its project have spent moves with the rows of their requests and in no other way. Whoever posts has locked the
-- balance, so nobody waits for another one here. All rows of a statement are recorded at one moment; Postgres refuses it otherwise.
CREATE OR REPLACE FUNCTION billing.post_spending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.spending AS s (account_id, spender_kind, spender_id, day, amount_nano_usd, quarters)
    SELECT account_id, kind, id, (recorded_at AT TIME ZONE 'UTC')::date, amount,
           array_fill(amount, ARRAY[1], ARRAY[billing.quarter_of(recorded_at)])
    FROM (
        SELECT a.account_id, spender.kind, spender.id, r.recorded_at, sum(r.price_nano_usd - r.absorbed_nano_usd)::bigint AS amount
        FROM new_requests r
        JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = r.org_id AND a.mode = r.mode
        CROSS JOIN LATERAL (VALUES ('key', r.key_id), ('project', r.project_id)) AS spender (kind, id)
        WHERE r.price_nano_usd > r.absorbed_nano_usd AND spender.id IS NOT NULL
        GROUP BY a.account_id, spender.kind, spender.id, r.recorded_at
    ) paid
    ON CONFLICT (account_id, spender_kind, spender_id, day) DO UPDATE SET
        amount_nano_usd = s.amount_nano_usd + excluded.amount_nano_usd,
        quarters[array_lower(excluded.quarters, 1)] =
            coalesce(s.quarters[array_lower(excluded.quarters, 1)], 0) + excluded.amount_nano_usd;
    RETURN NULL;
END $$;
