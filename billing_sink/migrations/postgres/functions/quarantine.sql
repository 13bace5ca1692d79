-- How long it waits for a person. After that it goes back; the row stays open, and a later charge is paid from what is free.
CREATE OR REPLACE FUNCTION billing.quarantine_wait() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '7 days' $$;

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
            jsonb_build_object(
                'usage_source', 'none', 'project_id', v_hold.project_id, 'key_id', v_hold.key_id, 'stream', false, 'status', 0, 'attempts', 0,
                'started_at', v_line.quarantined_at, 'duration_ms', 0, 'bytes_received', 0, 'bytes_sent', 0, 'sse_events', 0)
            || coalesce(v_line.request, '{}')
            || jsonb_build_object(
                'request_id', v_line.request_id, 'input_hash', encode(sha256(v_line.line), 'hex'), 'meters', '{}'::jsonb,
                'outcome', CASE p_decision WHEN 'charge' THEN 'settled' ELSE 'released' END,
                'mode', v_payer.mode, 'org_id', v_payer.org_id, 'cost_nano_usd', 0, 'price_nano_usd', v_charged,
                'hold_nano_usd', v_granted, 'slice_id', v_slice.slice_id)), p_now);
    END IF;

    INSERT INTO billing.quarantine_decisions (
        quarantine_id, decision, amount_nano_usd, charged_nano_usd, held_nano_usd, reason, actor_kind, actor_id, decided_at)
    VALUES (
        p_quarantine_id, p_decision, p_amount_nano_usd, v_charged, v_held, p_reason, p_actor_kind, p_actor_id, p_now)
    RETURNING * INTO v_decision;
    RETURN v_decision;
END $$;
