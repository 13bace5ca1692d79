-- The last of an organisation's transactions that was posted before a moment; null if none was.
--
-- All there will ever be have been posted: whoever writes to a balance locks it before taking a number, so what is posted after this
-- has a higher one, whenever it began.
CREATE OR REPLACE FUNCTION billing.last_transaction(p_org_id text, p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM billing.accounts WHERE org_id = p_org_id AND mode = 'live' ORDER BY account_id FOR UPDATE;
    RETURN (
        SELECT max(last.transaction_id) FROM billing.accounts a CROSS JOIN LATERAL (
            SELECT e.transaction_id FROM billing.entries e JOIN billing.transactions t USING (transaction_id)
            WHERE e.account_id = a.account_id AND t.created_at < p_before
            ORDER BY e.transaction_id DESC LIMIT 1
        ) last
        WHERE a.org_id = p_org_id AND a.mode = 'live'
    );
END $$;

-- What moved an organisation's money between two of its transactions: usage by project and model, everything else by kind.
CREATE OR REPLACE FUNCTION billing.statement(p_org_id text, p_after bigint, p_last bigint)
RETURNS TABLE (kind text, project_id text, model text, count bigint, meters jsonb, amount_nano_usd bigint)
LANGUAGE sql STABLE AS $$
    WITH moved AS (
        SELECT e.transaction_id, sum(e.amount_nano_usd) AS amount
        FROM billing.accounts a JOIN billing.entries e USING (account_id)
        WHERE a.org_id = p_org_id AND a.mode = 'live' AND e.transaction_id > p_after AND e.transaction_id <= p_last
        GROUP BY e.transaction_id
    ), told AS (
        SELECT t.kind, r.project_id, r.model, m.amount, r.meters
        FROM moved m JOIN billing.transactions t USING (transaction_id)
        LEFT JOIN billing.requests r ON r.request_id = t.request_id
    ), counted AS (
        SELECT kind, project_id, model, jsonb_object_agg(meter, amount) AS meters FROM (
            SELECT told.kind, told.project_id, told.model, meter, sum(value::bigint) AS amount
            FROM told CROSS JOIN LATERAL jsonb_each_text(told.meters) AS each (meter, value)
            GROUP BY told.kind, told.project_id, told.model, meter
        ) by_meter GROUP BY kind, project_id, model
    ), summed AS (
        SELECT kind, project_id, model, count(*) AS count, sum(amount)::bigint AS amount
        FROM told GROUP BY kind, project_id, model
    )
    SELECT s.kind, s.project_id, s.model, s.count, c.meters, s.amount
    FROM summed s LEFT JOIN counted c
        ON (s.kind, s.project_id, s.model) IS NOT DISTINCT FROM (c.kind, c.project_id, c.model)
    ORDER BY s.kind <> 'usage', s.kind, s.amount, s.project_id, s.model
$$;

-- Closes the invoice of a month, which reaches from the one before to a transaction. False, and nothing changed, if there is one of this
-- month or of a later one, or nothing to put on it.
CREATE OR REPLACE FUNCTION billing.close_invoice(
    p_invoice_id text, p_org_id text, p_month date, p_time_zone text, p_ends_at timestamptz, p_last bigint,
    p_closed_at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_before  billing.invoices;
    v_lines   jsonb;
    v_opening bigint;
    v_moved   bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('billing.invoices.' || p_org_id, 0));
    SELECT * INTO v_before FROM billing.invoices WHERE org_id = p_org_id ORDER BY number DESC LIMIT 1;
    IF v_before.month >= p_month OR p_last <= coalesce(v_before.last_transaction_id, 0) THEN
        RETURN false;
    END IF;
    SELECT jsonb_agg(to_jsonb(s)), sum(s.amount_nano_usd) INTO v_lines, v_moved
        FROM billing.statement(p_org_id, coalesce(v_before.last_transaction_id, 0), p_last) s;
    IF v_lines IS NULL THEN
        RETURN false;
    END IF;
    v_opening := coalesce(v_before.closing_nano_usd, 0);
    INSERT INTO billing.invoices (
        invoice_id, org_id, number, month, time_zone, ends_at, after_transaction_id, last_transaction_id, opening_nano_usd,
        closing_nano_usd, lines, closed_at)
    VALUES (
        p_invoice_id, p_org_id, coalesce(v_before.number, 0) + 1, p_month, p_time_zone, p_ends_at,
        coalesce(v_before.last_transaction_id, 0), p_last, v_opening, v_opening + v_moved, v_lines, p_closed_at);
    RETURN true;
END $$;
