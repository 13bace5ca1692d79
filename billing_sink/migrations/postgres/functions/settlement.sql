-- Posts finished requests and ends what was held for them. Returns the ids of those that are recorded already with another input; for the
-- caller to quarantine. The same id with the same input changes nothing.
--
-- p_requests: an array of objects with the columns of billing.requests (input_hash in hex); mode, live where it is left out; hold_nano_usd,
-- what was held, and slice_id if that is a share of one. In the order in which they are to be paid for.
--
-- Each request is covered by its own hold or share first, then by what is free in the balance, in the order given; what is left is absorbed by
-- the platform. No request takes what another one holds. It may have both, where two processes were asked about it; then both end. A hold or
-- share whose time was over before the line came went back when it was: the line is late and pays from what else there is. A request and
-- what is held for it have to be of one organisation and one mode, or nothing at all is posted.
--
-- p_now: when they are recorded, which is the day and the month that they are spent in, whenever they began. By the database's clock unless it
-- is given: the one that billing.place_hold_within_budgets goes by.
CREATE OR REPLACE FUNCTION billing.settle(p_requests jsonb, p_now timestamptz DEFAULT now()) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    -- What is asked for each request that is not recorded yet, and what is decided about it. What is merely kept of it is read from p_requests
    -- when it is written, so that these rows are narrow, and each is written once. Another shape needs another name: a session that
    -- called the function of before still has the tables of before.
    CREATE TEMPORARY TABLE IF NOT EXISTS settling_asked (
        position       bigint NOT NULL,
        request_id     text NOT NULL,
        org_id         text,
        mode           text NOT NULL,
        outcome        text NOT NULL,
        price_nano_usd bigint NOT NULL,
        account_id     bigint,
        slice_id       text,
        share_nano_usd bigint,
        is_recorded    boolean NOT NULL,
        is_conflict    boolean NOT NULL
    ) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE IF NOT EXISTS settling_decided (
        position          bigint NOT NULL,
        request_id        text NOT NULL,
        org_id            text,
        mode              text NOT NULL,
        outcome           text NOT NULL,
        price_nano_usd    bigint NOT NULL,
        account_id        bigint,
        slice_id          text,
        -- What of its share was still in the slice.
        share_nano_usd    bigint,
        ends_hold         boolean NOT NULL,
        held_nano_usd     bigint NOT NULL,
        late              boolean NOT NULL,
        absorbed_nano_usd bigint NOT NULL,
        is_anothers       boolean NOT NULL
    ) ON COMMIT DELETE ROWS;
    DELETE FROM settling_asked;
    DELETE FROM settling_decided;

    -- Two sinks may be given the same request; the second waits here and then sees it recorded.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));

    INSERT INTO settling_asked
    SELECT n.position, n.request_id, n.org_id, n.mode, n.outcome, n.price_nano_usd,
        -- A client that left while it was decided about: the line says not whose it is, the hold does.
        CASE WHEN n.org_id IS NULL THEN (SELECT h.account_id FROM billing.holds h WHERE h.request_id = n.request_id)
             ELSE a.account_id END,
        n.slice_id,
        CASE WHEN n.slice_id IS NOT NULL THEN n.hold_nano_usd END,
        r.request_id IS NOT NULL,
        r.request_id IS NOT NULL AND r.input_hash <> decode(n.input_hash, 'hex')
    FROM (
        SELECT position, request_id, input_hash, org_id, coalesce(mode, 'live') AS mode, outcome, price_nano_usd, slice_id, hold_nano_usd
        FROM ROWS FROM (jsonb_to_recordset(p_requests) AS (
            request_id text, input_hash text, org_id text, mode text, outcome text, price_nano_usd bigint, slice_id text,
            hold_nano_usd bigint)) WITH ORDINALITY
            AS input (request_id, input_hash, org_id, mode, outcome, price_nano_usd, slice_id, hold_nano_usd, position)
    ) n
    LEFT JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = n.org_id AND a.mode = n.mode
    LEFT JOIN billing.requests r ON r.request_id = n.request_id;

    RETURN QUERY SELECT s.request_id FROM settling_asked s WHERE s.is_conflict;
    DELETE FROM settling_asked WHERE is_recorded;

    -- Balances first and in one order, like every other writer, so that nobody waits in a circle. Only in the books that
    -- are written: who pays with real money does not wait for play money.
    PERFORM FROM billing.accounts
        WHERE account_id IN (SELECT account_id FROM settling_asked)
           OR (org_id IS NULL AND mode IN (SELECT mode FROM settling_asked))
        ORDER BY account_id FOR UPDATE;

    -- Behind the lock: until then others may place holds and give slices back. A hold that had expired before its line came gave its
    -- money back, and so did a slice that was closed: the line is late and pays from what is free.
    INSERT INTO settling_decided
    SELECT position, request_id, org_id, mode, outcome, price_nano_usd, account_id, slice_id, share, ends_hold, held, late,
        beyond_hold - greatest(least(beyond_hold, free - (sum(beyond_hold) OVER before - beyond_hold)), 0),
        is_anothers
    FROM (
        SELECT d.*, greatest(price_nano_usd - held, 0) AS beyond_hold,
            coalesce(a.posted_nano_usd - a.held_nano_usd, 0)
                + sum(greatest(held - price_nano_usd, 0)) OVER (PARTITION BY d.account_id) AS free
        FROM (
            SELECT c.*, coalesce(share, 0) + CASE WHEN ends_hold THEN in_hold ELSE 0 END AS held FROM (
                SELECT s.position, s.request_id, s.org_id, s.mode, s.outcome, s.price_nano_usd, s.account_id, s.slice_id,
                    CASE WHEN s.slice_id IS NOT NULL THEN greatest(least(s.share_nano_usd, l.open_nano_usd
                        - (sum(s.share_nano_usd) OVER (PARTITION BY s.slice_id ORDER BY s.position) - s.share_nano_usd)), 0) END AS share,
                    h.amount_nano_usd AS in_hold,
                    coalesce(h.state = 'held' AND h.account_id = s.account_id, false) AS ends_hold,
                    coalesce(h.state = 'expired', false) OR l.closed_at IS NOT NULL AS late,
                    (s.org_id IS NOT NULL AND h.request_id IS NOT NULL AND h.account_id IS DISTINCT FROM s.account_id)
                        OR (s.slice_id IS NOT NULL AND (l.slice_id IS NULL OR l.account_id IS DISTINCT FROM s.account_id)) AS is_anothers
                FROM settling_asked s
                LEFT JOIN billing.holds h ON h.request_id = s.request_id
                LEFT JOIN billing.slices l ON l.slice_id = s.slice_id
            ) c
        ) d
        LEFT JOIN billing.accounts a ON a.account_id = d.account_id
    ) e
    WINDOW before AS (PARTITION BY account_id ORDER BY position);
    IF EXISTS (SELECT FROM settling_decided WHERE is_anothers) THEN
        RAISE integrity_constraint_violation USING MESSAGE = 'what pays for a request is not its organisation''s, or of another mode';
    END IF;

    UPDATE billing.holds h
        SET state = CASE s.outcome WHEN 'refused' THEN 'released' WHEN 'free' THEN 'released' ELSE s.outcome END,
            finished_at = p_now
        FROM settling_decided s WHERE s.ends_hold AND h.request_id = s.request_id;
    UPDATE billing.slices l SET settled_nano_usd = l.settled_nano_usd + s.amount,
        requests_settled = l.requests_settled + s.requests
        FROM (SELECT slice_id, sum(share_nano_usd)::bigint AS amount, count(*) AS requests
              FROM settling_decided WHERE slice_id IS NOT NULL GROUP BY slice_id) s
        WHERE l.slice_id = s.slice_id;

    INSERT INTO billing.requests (
        request_id, input_hash, mode, outcome, late, usage_source, org_id, project_id, key_id, endpoint, model, provider,
        price_version, stream, status, error_code, response_flags, response_details, attempts, client_request_id,
        user_agent, started_at, duration_ms, first_byte_ms, bytes_received, bytes_sent, sse_events, meters,
        cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw, hold_nano_usd, slice_id, recorded_at,
        upstream_model, asked_model, choice, cached, own_key, tags, overhead_us)
    SELECT s.request_id, decode(r.input_hash, 'hex'), s.mode, s.outcome, s.late, r.usage_source, s.org_id, r.project_id,
        r.key_id, r.endpoint, r.model, r.provider, r.price_version, r.stream, r.status, r.error_code, r.response_flags,
        r.response_details, r.attempts, r.client_request_id, r.user_agent, r.started_at, r.duration_ms,
        r.first_byte_ms, r.bytes_received, r.bytes_sent, r.sse_events, r.meters, r.cost_nano_usd, s.price_nano_usd,
        s.absorbed_nano_usd, r.usage_raw, r.hold_nano_usd, s.slice_id, p_now,
        r.upstream_model, r.asked_model, r.choice, coalesce(r.cached, false), coalesce(r.own_key, false),
        r.tags, r.overhead_us
    FROM jsonb_to_recordset(p_requests) AS r (
        request_id text, input_hash text, usage_source text, project_id text, key_id text, endpoint text, model text,
        provider text, price_version bigint, stream boolean, status integer, error_code text, response_flags text,
        response_details text, attempts integer, client_request_id text, user_agent text, started_at timestamptz,
        duration_ms bigint, first_byte_ms bigint, bytes_received bigint, bytes_sent bigint, sse_events integer,
        meters jsonb, cost_nano_usd bigint, usage_raw jsonb, hold_nano_usd bigint, upstream_model text,
        asked_model text, choice text, cached boolean, own_key boolean, tags jsonb, overhead_us bigint)
    JOIN settling_decided s USING (request_id)
    ORDER BY s.position;

    UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - h.amount
    FROM (SELECT account_id, sum(held_nano_usd)::bigint AS amount FROM settling_decided GROUP BY account_id) h
    WHERE a.account_id = h.account_id AND h.amount > 0;

    WITH posted AS (
        INSERT INTO billing.transactions (kind, request_id, mode)
        SELECT 'usage', request_id, mode FROM settling_decided WHERE price_nano_usd > 0 ORDER BY position
        RETURNING transaction_id, request_id
    )
    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT p.transaction_id, side.account_id, side.amount_nano_usd, s.mode
    FROM posted p
    JOIN settling_decided s USING (request_id)
    JOIN billing.accounts revenue ON revenue.kind = 'revenue' AND revenue.mode = s.mode
    JOIN billing.accounts absorbed ON absorbed.kind = 'platform_absorbed' AND absorbed.mode = s.mode
    CROSS JOIN LATERAL (VALUES
        (s.account_id, s.absorbed_nano_usd - s.price_nano_usd),
        (absorbed.account_id, -s.absorbed_nano_usd),
        (revenue.account_id, s.price_nano_usd)) side (account_id, amount_nano_usd)
    WHERE side.amount_nano_usd <> 0;
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
