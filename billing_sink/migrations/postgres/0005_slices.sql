-- what: slices, holds that a process of ext_authz spends on many requests; billing.settle takes what a request pays from them
-- why: admission asks Postgres once for many requests, as long as there is plenty of money
-- running version survives it: yes, lines without a slice settle as before

-- Money set aside for many requests. granted = settled + returned + unknown once it is closed; what is still open is held.
CREATE TABLE billing.slices (
    slice_id          text PRIMARY KEY,
    account_id        bigint NOT NULL REFERENCES billing.accounts,
    -- The process of ext_authz that spends it.
    holder            text NOT NULL,
    amount_nano_usd   bigint NOT NULL CHECK (amount_nano_usd > 0),
    -- Shares of requests that have ended, whatever they then cost.
    settled_nano_usd  bigint NOT NULL DEFAULT 0 CHECK (settled_nano_usd >= 0),
    -- What its holder had not spent and gave back.
    returned_nano_usd bigint NOT NULL DEFAULT 0 CHECK (returned_nano_usd >= 0),
    -- What nobody had accounted for when its time was over.
    unknown_nano_usd  bigint NOT NULL DEFAULT 0 CHECK (unknown_nano_usd >= 0),
    open_nano_usd     bigint NOT NULL
                      GENERATED ALWAYS AS (amount_nano_usd - settled_nano_usd - returned_nano_usd - unknown_nano_usd) STORED,
    requests_settled  integer NOT NULL DEFAULT 0,
    opened_at         timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL,
    closed_at         timestamptz,
    CHECK (amount_nano_usd >= settled_nano_usd + returned_nano_usd + unknown_nano_usd),
    CHECK (closed_at IS NULL OR amount_nano_usd = settled_nano_usd + returned_nano_usd + unknown_nano_usd)
);
CREATE INDEX slices_open ON billing.slices (expires_at) WHERE closed_at IS NULL;

-- What was held for a request when it was admitted: by a hold of its own, or as a share of a slice.
ALTER TABLE billing.requests ADD COLUMN hold_nano_usd bigint, ADD COLUMN slice_id text;
-- The share of a quarantined request stays in its slice until a person has decided.
ALTER TABLE billing.quarantine ADD COLUMN slice_id text, ADD COLUMN share_nano_usd bigint;
CREATE INDEX quarantine_of_slice ON billing.quarantine (slice_id) WHERE slice_id IS NOT NULL;

-- Sets a part of what is free in a balance aside, in millionths of it. Returns how much that is; NULL, and nothing changed, if
-- it is less than p_amount_min: then there is too little money for slices.
CREATE FUNCTION billing.open_slice(
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
CREATE FUNCTION billing.return_slice(p_slice_id text, p_unspent_nano_usd bigint) RETURNS void LANGUAGE plpgsql AS $$
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
-- holder: it goes back to the balance, and is counted. Shares of quarantined requests stay. Returns how many were closed and how
-- much was unknown.
CREATE FUNCTION billing.close_slices(p_now timestamptz, p_limit integer, OUT closed integer, OUT unknown_nano_usd bigint)
LANGUAGE plpgsql AS $$
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
            SELECT coalesce(sum(share_nano_usd), 0)::bigint AS kept FROM billing.quarantine WHERE slice_id = s.slice_id
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

-- As before; a request with a slice is covered by its share of that in the place of a hold of its own.
--
-- p_requests: as in 0002 and 0003, and hold_nano_usd, and slice_id if that is a share of one. A share of a slice that is closed
-- went back when it was: the line is late and pays from what is free.
CREATE OR REPLACE FUNCTION billing.settle(p_requests jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    -- Not the name it had in 0003: a session that called the function of then still has the table of then.
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
        cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw, hold_nano_usd, slice_id)
    SELECT s.request_id, decode(r.input_hash, 'hex'), s.mode, s.outcome, s.late, r.usage_source, r.org_id, r.project_id,
        r.key_id, r.endpoint, r.model, r.provider, r.price_version, r.stream, r.status, r.error_code, r.response_flags,
        r.response_details, r.attempts, r.client_request_id, r.user_agent, r.started_at, r.duration_ms,
        r.first_byte_ms, r.bytes_received, r.bytes_sent, r.sse_events, r.meters, r.cost_nano_usd, s.price_nano_usd,
        s.absorbed_nano_usd, r.usage_raw, r.hold_nano_usd, s.slice_id
    FROM settling_with_slices s, jsonb_to_record(s.request) AS r (
        input_hash text, usage_source text, org_id text, project_id text, key_id text, endpoint text, model text,
        provider text, price_version bigint, stream boolean, status integer, error_code text, response_flags text,
        response_details text, attempts integer, client_request_id text, user_agent text, started_at timestamptz,
        duration_ms bigint, first_byte_ms bigint, bytes_received bigint, bytes_sent bigint, sse_events integer,
        meters jsonb, cost_nano_usd bigint, usage_raw jsonb, hold_nano_usd bigint)
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
