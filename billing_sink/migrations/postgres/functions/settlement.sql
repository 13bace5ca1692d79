-- Posts finished requests and ends what was held for them. Returns the ids of those that are recorded already with another input; for the
-- caller to quarantine. The same id with the same input changes nothing.
--
-- p_requests: an array of objects with the columns of billing.requests (input_hash in hex); mode, live where it is left out; hold_nano_usd,
-- what was held, and slice_id if that is a share of one. In the order in which they are to be paid for.
--
-- Each request is covered by its own hold or share first, then by what is free in the balance, in the order given; what is left is absorbed by
-- the platform. No request takes what another one holds. A hold or share whose time was over before the line came went back when it was:
-- the line is late and pays from what is free. A request and what is held for it have to be of one organisation and one mode, or nothing
-- at all is posted.
CREATE OR REPLACE FUNCTION billing.settle(p_requests jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    -- Another shape needs another name: a session that called the function of before still has the table of before.
    CREATE TEMPORARY TABLE IF NOT EXISTS settling_with_slices (
        position          bigint,
        request_id        text PRIMARY KEY,
        request           jsonb,
        mode              text,
        outcome           text,
        price_nano_usd    bigint,
        account_id        bigint,
        slice_id          text,
        held_nano_usd     bigint NOT NULL DEFAULT 0,
        late              boolean NOT NULL DEFAULT false,
        absorbed_nano_usd bigint NOT NULL DEFAULT 0,
        transaction_id    bigint
    ) ON COMMIT DELETE ROWS;
    DELETE FROM settling_with_slices;

    INSERT INTO settling_with_slices (position, request_id, request, mode, outcome, price_nano_usd, slice_id)
    SELECT position, value ->> 'request_id', value, coalesce(value ->> 'mode', 'live'), value ->> 'outcome',
        (value ->> 'price_nano_usd')::bigint, value ->> 'slice_id'
    FROM jsonb_array_elements(p_requests) WITH ORDINALITY AS input (value, position);

    -- Two sinks may be given the same request; the second waits here and then sees it recorded.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));

    RETURN QUERY
        SELECT s.request_id FROM settling_with_slices s JOIN billing.requests r USING (request_id)
        WHERE r.input_hash <> decode(s.request ->> 'input_hash', 'hex');
    DELETE FROM settling_with_slices s USING billing.requests r WHERE r.request_id = s.request_id;

    IF EXISTS (
        SELECT FROM settling_with_slices s
        JOIN billing.holds h USING (request_id) JOIN billing.accounts a ON a.account_id = h.account_id
        WHERE a.mode <> s.mode OR a.org_id <> s.request ->> 'org_id'
        UNION ALL
        SELECT FROM settling_with_slices s
        LEFT JOIN billing.slices l USING (slice_id) LEFT JOIN billing.accounts a ON a.account_id = l.account_id
        WHERE s.slice_id IS NOT NULL
          AND (a.mode, a.org_id) IS DISTINCT FROM (s.mode, s.request ->> 'org_id')
    ) THEN
        RAISE integrity_constraint_violation USING MESSAGE = 'what pays for a request is not its organisation''s, or of another mode';
    END IF;

    -- Balances first and in one order, like every other writer, so that nobody waits in a circle. Only in the books that
    -- are written: who pays with real money does not wait for play money.
    UPDATE settling_with_slices s SET account_id = a.account_id
    FROM billing.accounts a WHERE a.kind = 'balance' AND a.org_id = s.request ->> 'org_id' AND a.mode = s.mode;
    PERFORM FROM billing.accounts
        WHERE account_id IN (SELECT account_id FROM settling_with_slices)
           OR (org_id IS NULL AND mode IN (SELECT mode FROM settling_with_slices))
        ORDER BY account_id FOR UPDATE;

    UPDATE billing.holds h
        SET state = CASE s.outcome WHEN 'refused' THEN 'released' WHEN 'free' THEN 'released' ELSE s.outcome END,
            finished_at = now()
        FROM settling_with_slices s WHERE h.request_id = s.request_id AND h.state = 'held';
    -- A hold that had expired before its line came gave its money back: the line is late and pays from what is free.
    UPDATE settling_with_slices s SET
        account_id = h.account_id,
        held_nano_usd = CASE WHEN h.state = 'expired' THEN 0 ELSE h.amount_nano_usd END,
        late = h.state = 'expired'
        FROM billing.holds h WHERE h.request_id = s.request_id;

    WITH share AS (
        SELECT position, slice_id, (request ->> 'hold_nano_usd')::bigint AS amount
        FROM settling_with_slices WHERE slice_id IS NOT NULL
    ), running AS (
        SELECT position, slice_id, amount,
               sum(amount) OVER (PARTITION BY slice_id ORDER BY position) - amount AS taken_before
        FROM share
    )
    UPDATE settling_with_slices s SET
        held_nano_usd = greatest(least(r.amount, l.open_nano_usd - r.taken_before), 0),
        late = l.closed_at IS NOT NULL
        FROM running r JOIN billing.slices l USING (slice_id) WHERE r.position = s.position;
    UPDATE billing.slices l SET settled_nano_usd = l.settled_nano_usd + s.amount,
        requests_settled = l.requests_settled + s.requests
        FROM (SELECT slice_id, sum(held_nano_usd)::bigint AS amount, count(*) AS requests
              FROM settling_with_slices WHERE slice_id IS NOT NULL GROUP BY slice_id) s
        WHERE l.slice_id = s.slice_id;

    WITH need AS (
        SELECT position, account_id,
               greatest(price_nano_usd - held_nano_usd, 0) AS beyond_hold,
               greatest(held_nano_usd - price_nano_usd, 0) AS left_of_hold
        FROM settling_with_slices
    ), running AS (
        SELECT n.position, n.beyond_hold,
               sum(n.beyond_hold) OVER (PARTITION BY n.account_id ORDER BY n.position) - n.beyond_hold AS taken_before,
               coalesce(a.posted_nano_usd - a.held_nano_usd, 0)
                   + sum(n.left_of_hold) OVER (PARTITION BY n.account_id) AS free
        FROM need n LEFT JOIN billing.accounts a USING (account_id)
    )
    UPDATE settling_with_slices s
    SET absorbed_nano_usd = r.beyond_hold - greatest(least(r.beyond_hold, r.free - r.taken_before), 0)
    FROM running r WHERE r.position = s.position AND r.beyond_hold > 0;

    INSERT INTO billing.requests (
        request_id, input_hash, mode, outcome, late, usage_source, org_id, project_id, key_id, endpoint, model, provider,
        price_version, stream, status, error_code, response_flags, response_details, attempts, client_request_id,
        user_agent, started_at, duration_ms, first_byte_ms, bytes_received, bytes_sent, sse_events, meters,
        cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw, hold_nano_usd, slice_id, upstream_model)
    SELECT s.request_id, decode(r.input_hash, 'hex'), s.mode, s.outcome, s.late, r.usage_source, r.org_id, r.project_id,
        r.key_id, r.endpoint, r.model, r.provider, r.price_version, r.stream, r.status, r.error_code, r.response_flags,
        r.response_details, r.attempts, r.client_request_id, r.user_agent, r.started_at, r.duration_ms,
        r.first_byte_ms, r.bytes_received, r.bytes_sent, r.sse_events, r.meters, r.cost_nano_usd, s.price_nano_usd,
        s.absorbed_nano_usd, r.usage_raw, r.hold_nano_usd, s.slice_id, r.upstream_model
    FROM settling_with_slices s, jsonb_to_record(s.request) AS r (
        input_hash text, usage_source text, org_id text, project_id text, key_id text, endpoint text, model text,
        provider text, price_version bigint, stream boolean, status integer, error_code text, response_flags text,
        response_details text, attempts integer, client_request_id text, user_agent text, started_at timestamptz,
        duration_ms bigint, first_byte_ms bigint, bytes_received bigint, bytes_sent bigint, sse_events integer,
        meters jsonb, cost_nano_usd bigint, usage_raw jsonb, hold_nano_usd bigint, upstream_model text)
    ORDER BY s.position;

    UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - h.amount
    FROM (SELECT account_id, sum(held_nano_usd)::bigint AS amount FROM settling_with_slices GROUP BY account_id) h
    WHERE a.account_id = h.account_id AND h.amount > 0;

    WITH posted AS (
        INSERT INTO billing.transactions (kind, request_id, mode)
        SELECT 'usage', request_id, mode FROM settling_with_slices WHERE price_nano_usd > 0 ORDER BY position
        RETURNING transaction_id, request_id
    )
    UPDATE settling_with_slices s SET transaction_id = p.transaction_id FROM posted p WHERE p.request_id = s.request_id;

    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT transaction_id, account_id, amount, mode FROM (
        SELECT transaction_id, account_id, absorbed_nano_usd - price_nano_usd AS amount, mode FROM settling_with_slices
        UNION ALL
        SELECT s.transaction_id, a.account_id, -s.absorbed_nano_usd, s.mode
            FROM settling_with_slices s JOIN billing.accounts a ON a.kind = 'platform_absorbed' AND a.mode = s.mode
        UNION ALL
        SELECT s.transaction_id, a.account_id, s.price_nano_usd, s.mode
            FROM settling_with_slices s JOIN billing.accounts a ON a.kind = 'revenue' AND a.mode = s.mode
    ) entry
    WHERE transaction_id IS NOT NULL AND amount <> 0;
END $$;

-- Moves a spool's offset; false, and nothing changed, if it is not where the caller thinks.
CREATE OR REPLACE FUNCTION billing.move_offset(p_spool_id text, p_begin bigint, p_end bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.spool_offsets (spool_id, byte_offset) VALUES (p_spool_id, 0) ON CONFLICT DO NOTHING;
    UPDATE billing.spool_offsets SET byte_offset = p_end, moved_at = now()
    WHERE spool_id = p_spool_id AND byte_offset = p_begin;
    RETURN FOUND;
END $$;
