-- what: what is held for a quarantined request is held for seven days at most
-- why: it stayed for ever where nobody decided; a tenant's money would be out of reach for a fault that is not theirs
-- running version survives it: yes, the functions are called as before

-- How long it waits for a person. After that it goes back; the row stays open, and a later charge is paid from what is free.
CREATE FUNCTION billing.quarantine_wait() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '7 days' $$;

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
