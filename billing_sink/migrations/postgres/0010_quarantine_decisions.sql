-- what: billing.decide_quarantine, by which a person charges or releases a quarantined request, and what was decided
-- why: it took SQL by hand, and SQL by hand is how books go wrong
-- running version survives it: yes, what it quarantines has no request beside it and is decided about all the same

-- What could be read of the line, as billing.settle takes it; NULL where that was nothing.
ALTER TABLE billing.quarantine ADD COLUMN request jsonb;

-- One for each quarantined line at most.
CREATE TABLE billing.quarantine_decisions (
    quarantine_id    bigint PRIMARY KEY REFERENCES billing.quarantine,
    decision         text NOT NULL CHECK (decision IN ('charge', 'release')),
    -- What was to be charged; NULL for what was held.
    amount_nano_usd  bigint CHECK (amount_nano_usd > 0),
    charged_nano_usd bigint NOT NULL CHECK (charged_nano_usd >= 0),
    -- What was still held for it and came free; a charge is paid from it first.
    held_nano_usd    bigint NOT NULL CHECK (held_nano_usd >= 0),
    reason           text NOT NULL,
    actor_kind       text NOT NULL,
    actor_id         text NOT NULL,
    decided_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (decision = 'charge' OR (charged_nano_usd = 0 AND amount_nano_usd IS NULL))
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.quarantine_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();

-- Closes slices whose time is over. What is still open in them was spent on requests nobody has heard of, or died with its
-- holder: it goes back to the balance, and is counted. Shares of quarantined requests stay while they wait for a decision. Returns
-- how many were closed and how much was unknown.
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

-- Decides about a quarantined line, once. Returns the decision that holds: this one, or the one that was made before. NULL, and
-- nothing changed, when there is nothing to charge: the request is recorded already, or nobody is known who would pay for it.
--
-- 'charge' takes the amount, or if none is named what was held, but never more than what is still held for the request and what is
-- free in the balance; 'release' takes nothing. Either way the request is settled like any other (billing.settle): its hold or its
-- share ends, and it has its row. Whoever pays is whose money was held, whatever the line says.
CREATE FUNCTION billing.decide_quarantine(
    p_quarantine_id bigint, p_decision text, p_amount_nano_usd bigint, p_reason text, p_actor_kind text, p_actor_id text
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
                'usage_source', 'none', 'key_id', v_hold.key_id, 'stream', false, 'status', 0, 'attempts', 0,
                'started_at', v_line.quarantined_at, 'duration_ms', 0, 'bytes_received', 0, 'bytes_sent', 0, 'sse_events', 0)
            || coalesce(v_line.request, '{}')
            || jsonb_build_object(
                'request_id', v_line.request_id, 'input_hash', encode(sha256(v_line.line), 'hex'), 'meters', '{}'::jsonb,
                'outcome', CASE p_decision WHEN 'charge' THEN 'settled' ELSE 'released' END,
                'mode', v_payer.mode, 'org_id', v_payer.org_id, 'cost_nano_usd', 0, 'price_nano_usd', v_charged,
                'hold_nano_usd', v_granted, 'slice_id', v_slice.slice_id)));
    END IF;

    INSERT INTO billing.quarantine_decisions (
        quarantine_id, decision, amount_nano_usd, charged_nano_usd, held_nano_usd, reason, actor_kind, actor_id)
    VALUES (
        p_quarantine_id, p_decision, p_amount_nano_usd, v_charged, v_held, p_reason, p_actor_kind, p_actor_id)
    RETURNING * INTO v_decision;
    RETURN v_decision;
END $$;

-- As before, and that decisions charged what they say.
ALTER FUNCTION billing.check_books() RENAME TO check_ledger;
CREATE FUNCTION billing.check_books() RETURNS TABLE (name text, wrong bigint, example text) LANGUAGE sql STABLE AS $$
    SELECT * FROM billing.check_ledger()
    UNION ALL
    SELECT 'decided_charges_are_in_the_ledger', count(*), min(d.quarantine_id)::text
    FROM billing.quarantine_decisions d
    JOIN billing.quarantine q USING (quarantine_id)
    LEFT JOIN billing.requests r ON r.request_id = q.request_id
    WHERE d.decision = 'charge' AND (r.price_nano_usd, r.absorbed_nano_usd) IS DISTINCT FROM (d.charged_nano_usd, 0);
$$;
