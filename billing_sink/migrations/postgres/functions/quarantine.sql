-- How long it waits for a person. After that it goes back; the row stays open, and a later charge is paid from what is free.
CREATE OR REPLACE FUNCTION billing.quarantine_wait() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '7 days' $$;

-- What is known of the request of a quarantined line, in the columns of billing.requests: what could be read of it, and whose money was
-- held for it, whatever the line says. Nobody has counted anything, so there are no meters.
CREATE OR REPLACE FUNCTION billing.quarantined_request(
    p_line billing.quarantine, p_hold billing.holds, p_payer billing.accounts
) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
            'usage_source', 'none', 'project_id', p_hold.project_id, 'key_id', p_hold.key_id, 'stream', false, 'status', 0, 'attempts', 0,
            'started_at', p_line.quarantined_at, 'duration_ms', 0, 'bytes_received', 0, 'bytes_sent', 0, 'sse_events', 0, 'own_key', false)
        || coalesce(p_line.request, '{}') - 'input_hash'
        || jsonb_build_object(
            'request_id', p_line.request_id, 'meters', '{}'::jsonb, 'cost_nano_usd', 0,
            'org_id', coalesce(p_payer.org_id, p_line.request ->> 'org_id'),
            'mode', coalesce(p_payer.mode, p_line.request ->> 'mode'))
$$;

-- One request that is over, of which somebody is known who pays; also one that nobody could price, which is then `quarantined`: nobody
-- knows yet what it costs, so its price and what is absorbed of it are NULL, and not zero. `by_decision`: what it costs was decided by a
-- person, so no meters say it.
CREATE OR REPLACE FUNCTION billing.receipt(p_request_id text) RETURNS TABLE (request billing.requests, by_decision boolean)
LANGUAGE sql STABLE AS $$
    SELECT r, EXISTS (
        SELECT FROM billing.quarantine q JOIN billing.quarantine_decisions USING (quarantine_id)
        WHERE q.request_id = r.request_id AND sha256(q.line) = r.input_hash)
    FROM billing.requests r WHERE r.request_id = p_request_id AND r.org_id IS NOT NULL
    UNION ALL (
        SELECT w, d.quarantine_id IS NOT NULL
        FROM billing.quarantine q
        LEFT JOIN billing.quarantine_decisions d USING (quarantine_id)
        LEFT JOIN billing.holds h ON h.request_id = q.request_id
        LEFT JOIN billing.slices s ON s.slice_id = q.slice_id AND h.request_id IS NULL
        LEFT JOIN billing.accounts a ON a.account_id = coalesce(h.account_id, s.account_id)
        CROSS JOIN LATERAL jsonb_populate_record(
            NULL::billing.requests,
            billing.quarantined_request(q, h, a) || jsonb_build_object(
                'outcome', CASE WHEN d.quarantine_id IS NULL THEN 'quarantined' ELSE 'released' END,
                'late', false, 'recorded_at', q.quarantined_at,
                'price_nano_usd', CASE WHEN d.quarantine_id IS NOT NULL THEN 0 END,
                'absorbed_nano_usd', CASE WHEN d.quarantine_id IS NOT NULL THEN 0 END)
        ) w
        WHERE q.request_id = p_request_id AND w.org_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM billing.requests WHERE request_id = p_request_id)
        ORDER BY q.quarantined_at LIMIT 1)
$$;

-- Decides about a quarantined line, once. Returns the decision that holds: this one, or the one that was made before. NULL, and
-- nothing changed, when there is nothing to charge: the request is recorded already, or nobody is known who would pay for it.
--
-- 'charge' takes the amount, or if none is named what was held, but never more than what is still held for the request and what is
-- free in the balance; 'release' takes nothing. Either way the request is settled like any other (billing.settle): its hold or its
-- share ends, and it has its row. Whoever pays is whose money was held, whatever the line says.
CREATE OR REPLACE FUNCTION billing.decide_quarantine(
    p_quarantine_id bigint, p_decision text, p_amount_nano_usd bigint, p_reason text, p_actor_kind text, p_actor_id text,
    p_now timestamptz DEFAULT now()
) RETURNS billing.quarantine_decisions LANGUAGE plpgsql AS $$
DECLARE
    v_line     billing.quarantine;
    v_hold     billing.holds;
    v_slice    billing.slices;
    v_payer    billing.accounts;
    v_recorded boolean;
    v_granted  bigint;
    v_held     bigint := 0;
    v_charged  bigint := 0;
    v_decision billing.quarantine_decisions;
BEGIN
    -- The same order of locks as billing.settle. A second decision about the line waits here and then sees the first.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));
    SELECT * INTO v_decision FROM billing.quarantine_decisions WHERE quarantine_id = p_quarantine_id;
    IF FOUND THEN
        RETURN v_decision;
    END IF;
    SELECT * INTO STRICT v_line FROM billing.quarantine WHERE quarantine_id = p_quarantine_id;
    SELECT * INTO v_hold FROM billing.holds WHERE request_id = v_line.request_id;
    SELECT * INTO v_slice FROM billing.slices WHERE slice_id = v_line.slice_id AND v_hold.request_id IS NULL;
    SELECT * INTO v_payer FROM billing.accounts WHERE account_id = coalesce(v_hold.account_id, v_slice.account_id);
    v_recorded := EXISTS (SELECT FROM billing.requests WHERE request_id = v_line.request_id);

    IF v_recorded OR v_payer.account_id IS NULL THEN
        IF p_decision = 'charge' THEN
            RETURN NULL;
        END IF;
    ELSE
        PERFORM FROM billing.accounts
            WHERE account_id = v_payer.account_id OR (org_id IS NULL AND mode = v_payer.mode)
            ORDER BY account_id FOR UPDATE;
        SELECT * INTO v_payer FROM billing.accounts WHERE account_id = v_payer.account_id;
        -- What has been given back meanwhile is no longer held; the slice is locked by its balance.
        IF v_hold.request_id IS NOT NULL THEN
            v_granted := v_hold.amount_nano_usd;
            v_held := CASE v_hold.state WHEN 'held' THEN v_hold.amount_nano_usd ELSE 0 END;
        ELSE
            v_granted := coalesce(v_line.share_nano_usd, 0);
            v_held := least(v_granted, (SELECT open_nano_usd FROM billing.slices WHERE slice_id = v_slice.slice_id));
        END IF;
        IF p_decision = 'charge' THEN
            v_charged := least(
                coalesce(p_amount_nano_usd, v_granted), v_held + v_payer.posted_nano_usd - v_payer.held_nano_usd);
        END IF;
        PERFORM billing.settle(jsonb_build_array(
            billing.quarantined_request(v_line, v_hold, v_payer) || jsonb_build_object(
                'input_hash', encode(sha256(v_line.line), 'hex'),
                'outcome', CASE p_decision WHEN 'charge' THEN 'settled' ELSE 'released' END,
                'price_nano_usd', v_charged, 'hold_nano_usd', v_granted, 'slice_id', v_slice.slice_id)), p_now);
    END IF;

    INSERT INTO billing.quarantine_decisions (
        quarantine_id, decision, amount_nano_usd, charged_nano_usd, held_nano_usd, reason, actor_kind, actor_id, decided_at)
    VALUES (
        p_quarantine_id, p_decision, p_amount_nano_usd, v_charged, v_held, p_reason, p_actor_kind, p_actor_id, p_now)
    RETURNING * INTO v_decision;
    RETURN v_decision;
END $$;
