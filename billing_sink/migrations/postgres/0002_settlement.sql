-- what: settling a batch of finished requests, and expiring holds whose request was never heard of again
-- why: the two ways a hold ends
-- running version survives it: yes, nothing ran before

-- Writes finished requests and everything that follows from them. Called by billing_sink inside the transaction that
-- moves the spool offset.
--
-- p_requests: a JSON array of objects with the columns of billing.requests (input_hash in hex) without seq, written_by,
-- late, absorbed_nano_usd and recorded_at. A request id appears once in it.
--
-- Returns the ids that were already recorded with another input: the caller quarantines those. An id already recorded
-- with the same input is a no-op.
--
-- Who pays: each request is covered first by its own hold, then by what is free in the balance, in the order of the
-- array; what is still open is absorbed by the platform. A balance never goes below zero.
CREATE FUNCTION billing.settle(p_requests jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS settling (
        position          bigint,
        request_id        text PRIMARY KEY,
        request           jsonb,
        outcome           text,
        price_nano_usd    bigint,
        account_id        bigint,
        held_nano_usd     bigint,
        late              boolean NOT NULL DEFAULT false,
        absorbed_nano_usd bigint NOT NULL DEFAULT 0,
        transaction_id    bigint
    ) ON COMMIT DELETE ROWS;
    DELETE FROM settling;

    INSERT INTO settling (position, request_id, request, outcome, price_nano_usd)
    SELECT position, value ->> 'request_id', value, value ->> 'outcome', (value ->> 'price_nano_usd')::bigint
    FROM jsonb_array_elements(p_requests) WITH ORDINALITY AS input (value, position);

    -- Two sinks may be given the same request; the second waits here and then sees it recorded.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));

    RETURN QUERY
        SELECT s.request_id FROM settling s JOIN billing.requests r USING (request_id)
        WHERE r.input_hash <> decode(s.request ->> 'input_hash', 'hex');
    DELETE FROM settling s USING billing.requests r WHERE r.request_id = s.request_id;

    -- Balances first and in one order, like every other writer, so that nobody waits in a circle.
    UPDATE settling s SET account_id = a.account_id
    FROM billing.accounts a WHERE a.kind = 'balance' AND a.org_id = s.request ->> 'org_id';
    PERFORM FROM billing.accounts
        WHERE account_id IN (SELECT account_id FROM settling) OR org_id IS NULL ORDER BY account_id FOR UPDATE;

    UPDATE billing.holds h
        SET state = CASE s.outcome WHEN 'refused' THEN 'released' WHEN 'free' THEN 'released' ELSE s.outcome END,
            finished_at = now()
        FROM settling s WHERE h.request_id = s.request_id AND h.state = 'held';
    -- A hold that had expired before its line came gave its money back: the line is late and pays from what is free.
    UPDATE settling s SET
        account_id = h.account_id,
        held_nano_usd = CASE WHEN h.state = 'expired' THEN 0 ELSE h.amount_nano_usd END,
        late = h.state = 'expired'
        FROM billing.holds h WHERE h.request_id = s.request_id;

    WITH need AS (
        SELECT position, account_id,
               greatest(price_nano_usd - coalesce(held_nano_usd, 0), 0) AS beyond_hold,
               greatest(coalesce(held_nano_usd, 0) - price_nano_usd, 0) AS left_of_hold
        FROM settling
    ), running AS (
        SELECT n.position, n.beyond_hold,
               sum(n.beyond_hold) OVER (PARTITION BY n.account_id ORDER BY n.position) - n.beyond_hold AS taken_before,
               coalesce(a.posted_nano_usd - a.held_nano_usd, 0)
                   + sum(n.left_of_hold) OVER (PARTITION BY n.account_id) AS free
        FROM need n LEFT JOIN billing.accounts a USING (account_id)
    )
    UPDATE settling s SET absorbed_nano_usd = r.beyond_hold - greatest(least(r.beyond_hold, r.free - r.taken_before), 0)
    FROM running r WHERE r.position = s.position AND r.beyond_hold > 0;

    INSERT INTO billing.requests (
        request_id, input_hash, outcome, late, usage_source, org_id, project_id, key_id, endpoint, model, provider,
        price_version, stream, status, error_code, response_flags, response_details, attempts, client_request_id,
        user_agent, started_at, duration_ms, first_byte_ms, bytes_received, bytes_sent, sse_events, meters,
        cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw)
    SELECT s.request_id, decode(r.input_hash, 'hex'), s.outcome, s.late, r.usage_source, r.org_id, r.project_id,
        r.key_id, r.endpoint, r.model, r.provider, r.price_version, r.stream, r.status, r.error_code, r.response_flags,
        r.response_details, r.attempts, r.client_request_id, r.user_agent, r.started_at, r.duration_ms,
        r.first_byte_ms, r.bytes_received, r.bytes_sent, r.sse_events, r.meters, r.cost_nano_usd, s.price_nano_usd,
        s.absorbed_nano_usd, r.usage_raw
    FROM settling s, jsonb_to_record(s.request) AS r (
        input_hash text, usage_source text, org_id text, project_id text, key_id text, endpoint text, model text,
        provider text, price_version bigint, stream boolean, status integer, error_code text, response_flags text,
        response_details text, attempts integer, client_request_id text, user_agent text, started_at timestamptz,
        duration_ms bigint, first_byte_ms bigint, bytes_received bigint, bytes_sent bigint, sse_events integer,
        meters jsonb, cost_nano_usd bigint, usage_raw jsonb)
    ORDER BY s.position;

    UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - h.amount
    FROM (SELECT account_id, sum(held_nano_usd)::bigint AS amount FROM settling GROUP BY account_id) h
    WHERE a.account_id = h.account_id AND h.amount > 0;

    WITH posted AS (
        INSERT INTO billing.transactions (kind, request_id)
        SELECT 'usage', request_id FROM settling WHERE price_nano_usd > 0 ORDER BY position
        RETURNING transaction_id, request_id
    )
    UPDATE settling s SET transaction_id = p.transaction_id FROM posted p WHERE p.request_id = s.request_id;

    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd)
    SELECT transaction_id, account_id, amount FROM (
        SELECT transaction_id, account_id, absorbed_nano_usd - price_nano_usd AS amount FROM settling
        UNION ALL
        SELECT transaction_id, a.account_id, -absorbed_nano_usd FROM settling, billing.accounts a
            WHERE a.kind = 'platform_absorbed'
        UNION ALL
        SELECT transaction_id, a.account_id, price_nano_usd FROM settling, billing.accounts a WHERE a.kind = 'revenue'
    ) entry
    WHERE transaction_id IS NOT NULL AND amount <> 0;
END $$;

-- Ends holds whose time is over and of whose request nothing was heard. Returns how many. A request in quarantine was heard
-- of: its hold stays until a person has decided.
CREATE FUNCTION billing.expire_holds(p_now timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    -- The same order of locks as billing.settle.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    WITH ended AS (
        UPDATE billing.holds SET state = 'expired', finished_at = p_now
        WHERE request_id IN (
            SELECT h.request_id FROM billing.holds h WHERE h.state = 'held' AND h.expires_at <= p_now
              AND NOT EXISTS (SELECT FROM billing.quarantine q WHERE q.request_id = h.request_id)
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

-- Moves a spool's offset; false, and nothing changed, if it is not where the caller thinks.
CREATE FUNCTION billing.move_offset(p_spool_id text, p_begin bigint, p_end bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.spool_offsets (spool_id, byte_offset) VALUES (p_spool_id, 0) ON CONFLICT DO NOTHING;
    UPDATE billing.spool_offsets SET byte_offset = p_end, moved_at = now()
    WHERE spool_id = p_spool_id AND byte_offset = p_begin;
    RETURN FOUND;
END $$;
