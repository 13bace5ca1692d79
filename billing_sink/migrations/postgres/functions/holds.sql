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

-- Ends holds whose time is over and of whose request nothing was heard, or nothing that anybody could price and has decided
-- about in time. Returns how many.
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
