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
-- balance, so nobody waits for another one here, and nobody else begins a row meanwhile. All rows of a statement that one spender has
-- paid for are recorded at one moment; they are refused otherwise. Which day and quarter a moment is in takes long, so it is asked once
-- for each.
CREATE OR REPLACE FUNCTION billing.post_spending() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_left_out bigint;
BEGIN
    WITH moments AS MATERIALIZED (
        SELECT recorded_at, (recorded_at AT TIME ZONE 'UTC')::date AS day, billing.quarter_of(recorded_at) AS quarter
        FROM (SELECT DISTINCT recorded_at FROM new_requests) r
    ), paid AS MATERIALIZED (
        SELECT account_id, kind, id, day, quarter, amount FROM (
            SELECT a.account_id, spender.kind, spender.id, r.recorded_at, sum(r.price_nano_usd - r.absorbed_nano_usd)::bigint AS amount
            FROM new_requests r
            JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = r.org_id AND a.mode = r.mode
            CROSS JOIN LATERAL (VALUES ('key', r.key_id), ('project', r.project_id)) AS spender (kind, id)
            WHERE r.price_nano_usd > r.absorbed_nano_usd AND spender.id IS NOT NULL
            GROUP BY a.account_id, spender.kind, spender.id, r.recorded_at
        ) spent JOIN moments USING (recorded_at)
    ), added AS (
        UPDATE billing.spending s SET
            amount_nano_usd = s.amount_nano_usd + p.amount,
            quarters[p.quarter] = coalesce(s.quarters[p.quarter], 0) + p.amount
        FROM paid p
        WHERE s.account_id = p.account_id AND s.spender_kind = p.kind AND s.spender_id = p.id AND s.day = p.day
        RETURNING s.account_id, s.spender_kind AS kind, s.spender_id AS id, s.day
    ), begun AS (
        INSERT INTO billing.spending (account_id, spender_kind, spender_id, day, amount_nano_usd, quarters)
        SELECT account_id, kind, id, day, amount, array_fill(amount, ARRAY[1], ARRAY[quarter])
        FROM paid LEFT JOIN added USING (account_id, kind, id, day) WHERE added.account_id IS NULL
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM paid) - (SELECT count(*) FROM added) - (SELECT count(*) FROM begun) INTO v_left_out;
    IF v_left_out <> 0 THEN
        RAISE cardinality_violation USING MESSAGE = 'requests that one key or project has paid for, recorded at several moments by one statement';
    END IF;
    RETURN NULL;
END $$;
