-- Sets money aside for a request: the amount, or as much of it as is free, which is returned. NULL, and nothing changed, if that is
-- below the least there has to be (the whole amount where nothing is said). Asked again about a request whose hold is open: what
-- that holds, and it stays the only one.
--
-- Two questions about one request may be here at once: a connection whose client is gone still finishes its statement. The
-- second then waits for the first at the account, and finds its hold. The statement of such a client may also be carried out when the
-- request is over: what is recorded gets no hold, which nobody would end. billing.settle locks the account before it records.
CREATE OR REPLACE FUNCTION billing.place_hold(
    p_request_id text, p_org_id text, p_key_id text, p_amount_nano_usd bigint, p_expires_at timestamptz,
    p_mode text DEFAULT 'live', p_least_nano_usd bigint DEFAULT NULL, p_project_id text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_least   bigint := coalesce(p_least_nano_usd, p_amount_nano_usd);
    v_account bigint;
    v_amount  bigint;
    v_open    billing.holds;
BEGIN
    SELECT account_id, least(p_amount_nano_usd, posted_nano_usd - held_nano_usd) INTO v_account, v_amount
    FROM billing.accounts WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode AND posted_nano_usd > 0
    FOR UPDATE;
    IF v_amount >= v_least THEN
        INSERT INTO billing.holds (request_id, account_id, project_id, key_id, amount_nano_usd, expires_at)
        SELECT p_request_id, v_account, p_project_id, p_key_id, v_amount, p_expires_at
        WHERE NOT EXISTS (SELECT FROM billing.requests WHERE request_id = p_request_id)
        ON CONFLICT (request_id) DO NOTHING;
        IF FOUND THEN
            UPDATE billing.accounts SET held_nano_usd = held_nano_usd + v_amount WHERE account_id = v_account;
            RETURN v_amount;
        END IF;
    END IF;
    -- Also when the balance does not cover it: what it lacks may be what the first question has set aside.
    SELECT * INTO v_open FROM billing.holds WHERE request_id = p_request_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_open.state <> 'held' OR v_open.key_id <> p_key_id OR v_open.amount_nano_usd < v_least
        OR NOT EXISTS (SELECT FROM billing.accounts
                       WHERE account_id = v_open.account_id AND org_id = p_org_id AND mode = p_mode) THEN
        -- Another question under the same id, or the request has ended: whoever asks must not let it pass.
        RAISE unique_violation USING MESSAGE = 'request ' || p_request_id || ' has another hold';
    END IF;
    RETURN v_open.amount_nano_usd;
END $$;

-- What says more than code can, also to whoever looks with psql.
COMMENT ON FUNCTION billing.place_hold IS
    'Holds nano-USD (1e-9 US dollars) of a balance for a request: p_amount_nano_usd, or as much of it as is free but not less than '
    'p_least_nano_usd. Returns what is held, NULL where that is less than the least. unique_violation: the request has another hold.';

-- Ends holds whose time is over and of whose request nothing was heard, or nothing that anybody could price and has decided
-- about in time. Returns how many.
--
-- p_now: by it their time is over, and it is when they have ended. p_limit: how many at the most, the oldest first.
CREATE OR REPLACE FUNCTION billing.expire_holds(p_now timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    -- The same order of locks as billing.settle.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    WITH ended AS (
        UPDATE billing.holds SET state = 'expired', finished_at = p_now
        WHERE request_id IN (
            SELECT h.request_id FROM billing.holds h WHERE h.state = 'held' AND h.expires_at <= p_now
              AND NOT EXISTS (
                SELECT FROM billing.quarantine q
                WHERE q.request_id = h.request_id AND q.quarantined_at > p_now - billing.quarantine_wait())
            ORDER BY h.expires_at LIMIT p_limit)
        RETURNING account_id, amount_nano_usd
    ), per_account AS (
        SELECT account_id, sum(amount_nano_usd)::bigint AS amount, count(*) AS holds FROM ended GROUP BY account_id
    ), freed AS (
        UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - p.amount
        FROM per_account p WHERE a.account_id = p.account_id
    )
    SELECT coalesce(sum(holds), 0) INTO v_count FROM per_account;
    RETURN v_count;
END $$;
COMMENT ON FUNCTION billing.expire_holds IS
    'Ends up to p_limit holds whose time was over at p_now; what they held, in nano-USD, is free again. Returns how many.';

-- Ends open holds of requests that are recorded: such a hold belongs to nobody any more. There is one where a line did not say whose its
-- request was and the hold was placed while it was being settled, and there may be others from before that was known. Returns how many,
-- and what was held by them.
--
-- p_now: when they have ended. p_limit: how many at the most.
CREATE OR REPLACE FUNCTION billing.end_stray_holds(
    p_now timestamptz, p_limit integer, OUT ended integer, OUT freed_nano_usd bigint
) LANGUAGE plpgsql AS $$
BEGIN
    -- The same order of locks as billing.settle.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    WITH strays AS (
        UPDATE billing.holds SET state = 'released', finished_at = p_now
        WHERE request_id IN (
            SELECT h.request_id FROM billing.holds h JOIN billing.requests r USING (request_id)
            WHERE h.state = 'held' ORDER BY h.placed_at LIMIT p_limit)
        RETURNING account_id, amount_nano_usd
    ), per_account AS (
        SELECT account_id, sum(amount_nano_usd)::bigint AS amount, count(*) AS holds FROM strays GROUP BY account_id
    ), freed AS (
        UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - p.amount
        FROM per_account p WHERE a.account_id = p.account_id
    )
    SELECT coalesce(sum(holds), 0), coalesce(sum(amount), 0) INTO ended, freed_nano_usd FROM per_account;
END $$;
COMMENT ON FUNCTION billing.end_stray_holds IS
    'Ends up to p_limit open holds of requests that are recorded already. Returns how many, and how many nano-USD are free again.';

-- What open holds, and slices of which something is open, hold of each balance, in nano-USD; one or two rows for each that has any.
CREATE OR REPLACE FUNCTION billing.held_by_balance() RETURNS TABLE (account_id bigint, amount bigint) LANGUAGE sql STABLE AS $$
    SELECT account_id, sum(amount_nano_usd)::bigint FROM billing.holds WHERE state = 'held' GROUP BY account_id
    UNION ALL
    SELECT account_id, sum(open_nano_usd)::bigint FROM billing.slices WHERE open_nano_usd <> 0 GROUP BY account_id
$$;

-- Sets what is held of each balance to what its open holds and slices hold, where that is something else: money that is held for nobody
-- comes free. For a person who has read what billing.check_books says (`held_is_in_open_holds_and_slices`), and knows why. Returns
-- what was changed, in nano-USD. Where a balance does not cover what it then holds, check_violation, and nothing is changed.
CREATE OR REPLACE FUNCTION billing.mend_held()
RETURNS TABLE (account_id bigint, org_id text, mode text, was_nano_usd bigint, is_nano_usd bigint) LANGUAGE plpgsql AS $$
BEGIN
    -- The same order of locks as billing.settle. Behind them no hold and no slice of these balances begins or ends.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    PERFORM FROM billing.accounts a WHERE a.kind = 'balance' ORDER BY a.account_id FOR UPDATE;
    RETURN QUERY
        UPDATE billing.accounts a SET held_nano_usd = h.amount
        FROM (
            SELECT b.account_id, coalesce(sum(o.amount), 0)::bigint AS amount
            FROM billing.accounts b LEFT JOIN billing.held_by_balance() o ON o.account_id = b.account_id
            WHERE b.kind = 'balance' GROUP BY b.account_id
        ) h
        WHERE a.account_id = h.account_id AND a.held_nano_usd <> h.amount
        RETURNING a.account_id, a.org_id, a.mode, old.held_nano_usd, new.held_nano_usd;
END $$;
COMMENT ON FUNCTION billing.mend_held IS
    'Sets the held nano-USD of each balance to what its open holds and slices hold. Returns the balances that were changed.';

-- Makes holds of their own out of parts of an open hold, for the requests that it was placed for together: what is held altogether stays as it
-- is. A request that has a hold, or is recorded, gets none; and none does once the hold is not open any more, since then its money went back.
--
-- p_parts: an array of objects (request_id, amount_nano_usd), together no more than what is held. check_violation otherwise.
CREATE OR REPLACE FUNCTION billing.divide_hold(p_request_id text, p_parts jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Nobody ends the hold meanwhile.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    WITH parted AS (
        INSERT INTO billing.holds (request_id, account_id, project_id, key_id, amount_nano_usd, expires_at)
        SELECT p.request_id, h.account_id, h.project_id, h.key_id, p.amount_nano_usd, h.expires_at
        FROM jsonb_to_recordset(p_parts) AS p (request_id text, amount_nano_usd bigint)
        JOIN billing.holds h ON h.request_id = p_request_id AND h.state = 'held'
        WHERE NOT EXISTS (SELECT FROM billing.requests r WHERE r.request_id = p.request_id)
        ON CONFLICT (request_id) DO NOTHING
        RETURNING amount_nano_usd
    )
    UPDATE billing.holds SET amount_nano_usd = amount_nano_usd - (SELECT sum(amount_nano_usd) FROM parted)
    WHERE request_id = p_request_id AND EXISTS (SELECT FROM parted);
END $$;
COMMENT ON FUNCTION billing.divide_hold IS
    'Makes holds of their own out of parts of the open hold p_request_id, for those requests in p_parts that have none and are not recorded.';
