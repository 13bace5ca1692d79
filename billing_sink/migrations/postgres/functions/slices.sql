-- Sets a part of what is free in a balance aside, in millionths of it. Returns how much that is; NULL, and nothing changed, if
-- it is less than p_amount_min: then there is too little money for slices.
--
-- p_slice_id: new, made by its holder. p_holder: the process of ext_authz that spends it.
-- p_share_ppm: of what is neither spent nor held, in millionths (20000 is 2 %), from 1 to 1000000.
-- p_amount_min: in nano-USD (1e-9 US dollars), 0 or more.
-- p_expires_at: when what is still open of it goes back (billing.close_slices): after it is no longer spent from, and the longest request.
-- Returns: nano-USD, 1 or more. Errors: unique_violation where the id is taken, check_violation where it would be more than is free.
CREATE OR REPLACE FUNCTION billing.open_slice(
    p_slice_id text, p_org_id text, p_mode text, p_holder text, p_share_ppm integer, p_amount_min bigint,
    p_expires_at timestamptz
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_amount  bigint;
BEGIN
    SELECT account_id, floor((posted_nano_usd - held_nano_usd)::numeric * p_share_ppm / 1000000)::bigint
        INTO v_account, v_amount FROM billing.accounts
        WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode FOR UPDATE;
    IF NOT FOUND OR v_amount <= 0 OR v_amount < p_amount_min THEN
        RETURN NULL;
    END IF;
    UPDATE billing.accounts SET held_nano_usd = held_nano_usd + v_amount WHERE account_id = v_account;
    INSERT INTO billing.slices (slice_id, account_id, holder, amount_nano_usd, expires_at)
    VALUES (p_slice_id, v_account, p_holder, v_amount, p_expires_at);
    RETURN v_amount;
END $$;

-- Gives back what of a slice has not been spent and will not be. Its holder says so once; said again, because the answer was lost,
-- it changes nothing.
--
-- p_unspent_nano_usd: all that was never spent of it, in nano-USD, from 0 to its size; what is not open any more is not given back.
-- Errors: no_data_found where there is no such slice.
CREATE OR REPLACE FUNCTION billing.return_slice(p_slice_id text, p_unspent_nano_usd bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_amount  bigint;
BEGIN
    SELECT account_id INTO STRICT v_account FROM billing.slices WHERE slice_id = p_slice_id;
    -- The balance first, like every other writer.
    PERFORM FROM billing.accounts WHERE account_id = v_account FOR UPDATE;
    SELECT least(open_nano_usd, p_unspent_nano_usd - returned_nano_usd) INTO v_amount FROM billing.slices
        WHERE slice_id = p_slice_id AND closed_at IS NULL FOR UPDATE;
    IF v_amount > 0 THEN
        UPDATE billing.slices SET returned_nano_usd = returned_nano_usd + v_amount WHERE slice_id = p_slice_id;
        UPDATE billing.accounts SET held_nano_usd = held_nano_usd - v_amount WHERE account_id = v_account;
    END IF;
END $$;

-- Closes slices whose time is over. What is still open in them was spent on requests nobody has heard of, or died with its
-- holder: it goes back to the balance, and is counted. Shares of quarantined requests stay while they wait for a decision. Returns
-- how many were closed and how much was unknown, in nano-USD.
--
-- p_now: by it their time is over, and it is when they are closed. p_limit: how many at the most, the oldest first.
CREATE OR REPLACE FUNCTION billing.close_slices(
    p_now timestamptz, p_limit integer, OUT closed integer, OUT unknown_nano_usd bigint
) LANGUAGE plpgsql AS $$
BEGIN
    -- The same order of locks as billing.settle.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    CREATE TEMPORARY TABLE IF NOT EXISTS closing (slice_id text, account_id bigint, amount bigint, kept bigint)
        ON COMMIT DELETE ROWS;
    DELETE FROM closing;
    INSERT INTO closing
        SELECT s.slice_id, s.account_id, greatest(s.open_nano_usd - q.kept, 0), least(q.kept, s.open_nano_usd)
        FROM billing.slices s
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(share_nano_usd), 0)::bigint AS kept FROM billing.quarantine w
            WHERE w.slice_id = s.slice_id AND w.quarantined_at > p_now - billing.quarantine_wait()
              AND NOT EXISTS (SELECT FROM billing.quarantine_decisions d WHERE d.quarantine_id = w.quarantine_id)
        ) q
        WHERE s.closed_at IS NULL AND s.expires_at <= p_now
          -- One of which only quarantined shares are left waits for a person.
          AND (q.kept = 0 OR s.open_nano_usd > q.kept)
        ORDER BY s.expires_at LIMIT p_limit;
    PERFORM FROM billing.accounts WHERE account_id IN (SELECT account_id FROM closing) ORDER BY account_id FOR UPDATE;
    -- Its holder may have given something back before the balance was locked.
    UPDATE closing c SET amount = least(c.amount, s.open_nano_usd - c.kept) FROM billing.slices s WHERE s.slice_id = c.slice_id;
    UPDATE billing.slices s SET unknown_nano_usd = s.unknown_nano_usd + c.amount,
        closed_at = CASE WHEN s.open_nano_usd = c.amount THEN p_now END
        FROM closing c WHERE s.slice_id = c.slice_id;
    UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - c.amount
        FROM (SELECT account_id, sum(amount)::bigint AS amount FROM closing GROUP BY account_id) c
        WHERE a.account_id = c.account_id;
    SELECT count(*), coalesce(sum(amount), 0) INTO closed, unknown_nano_usd FROM closing;
END $$;

-- What says more than code can, also to whoever looks with psql.
COMMENT ON FUNCTION billing.open_slice IS
    'Sets p_share_ppm millionths of what is free in a balance aside for many requests. Returns nano-USD (1e-9 US dollars); NULL where that is '
    'less than p_amount_min, in nano-USD too.';
COMMENT ON FUNCTION billing.return_slice IS
    'Gives back p_unspent_nano_usd nano-USD of a slice, all that was never spent of it; again, and nothing is changed.';
COMMENT ON FUNCTION billing.close_slices IS
    'Closes up to p_limit slices whose time was over at p_now. Returns how many, and how many nano-USD nobody had accounted for.';
