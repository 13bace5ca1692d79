-- One row per check: how many things are wrong, and one of them. Reads the whole ledger.
CREATE OR REPLACE FUNCTION billing.check_books() RETURNS TABLE (name text, wrong bigint, example text) LANGUAGE sql STABLE AS $$
    WITH paid AS (
        SELECT a.account_id, spender.kind, spender.id, date_bin('15 minutes', r.recorded_at, 'epoch') AS quarter,
               sum(r.price_nano_usd - r.absorbed_nano_usd) AS amount
        FROM billing.requests r JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = r.org_id AND a.mode = r.mode
        CROSS JOIN LATERAL (VALUES ('key', r.key_id), ('project', r.project_id)) AS spender (kind, id)
        WHERE r.price_nano_usd <> r.absorbed_nano_usd AND spender.id IS NOT NULL
        GROUP BY a.account_id, spender.kind, spender.id, quarter
    ), kept AS (
        SELECT account_id, spender_kind AS kind, spender_id AS id, quarters[n] AS amount,
               (day + (n - 1) * interval '15 minutes') AT TIME ZONE 'UTC' AS quarter
        FROM billing.spending, generate_subscripts(quarters, 1) AS n WHERE quarters[n] IS NOT NULL
    )
    SELECT 'transactions_sum_to_zero', count(*), min(transaction_id)::text FROM (
        SELECT transaction_id FROM billing.transactions t FULL JOIN billing.entries USING (transaction_id, mode)
        GROUP BY transaction_id, mode HAVING coalesce(sum(amount_nano_usd), 1) <> 0 OR count(t.kind) = 0
    ) unbalanced
    UNION ALL
    SELECT 'accounts_equal_their_entries', count(*), min(account_id)::text FROM (
        SELECT account_id FROM billing.accounts a FULL JOIN billing.entries USING (account_id, mode)
        GROUP BY account_id, mode, a.posted_nano_usd HAVING a.posted_nano_usd IS DISTINCT FROM coalesce(sum(amount_nano_usd), 0)
    ) drifted
    UNION ALL
    SELECT 'held_is_in_open_holds_and_slices', count(*), min(account_id)::text FROM (
        SELECT account_id FROM billing.accounts a LEFT JOIN billing.held_by_balance() h USING (account_id)
        GROUP BY account_id, a.held_nano_usd HAVING a.held_nano_usd <> coalesce(sum(h.amount), 0)
    ) leaking
    UNION ALL
    SELECT 'balances_cover_what_is_held', count(*), min(org_id) FROM billing.accounts
    WHERE kind = 'balance' AND posted_nano_usd - held_nano_usd < 0
    UNION ALL
    SELECT 'charged_requests_have_one_transaction_of_their_price', count(*), min(r.request_id)
    FROM billing.requests r
    LEFT JOIN billing.transactions t ON t.request_id = r.request_id AND t.kind = 'usage'
    LEFT JOIN LATERAL (
        SELECT sum(e.amount_nano_usd) AS amount FROM billing.entries e JOIN billing.accounts a USING (account_id)
        WHERE e.transaction_id = t.transaction_id AND a.kind = 'revenue'
    ) revenue ON true
    WHERE coalesce(revenue.amount, 0) <> r.price_nano_usd
    UNION ALL
    SELECT 'usage_transactions_have_a_request', count(*), min(t.request_id) FROM billing.transactions t
    WHERE t.kind = 'usage' AND NOT EXISTS (SELECT FROM billing.requests r WHERE r.request_id = t.request_id)
    UNION ALL
    SELECT 'ended_holds_have_an_outcome', count(*), min(h.request_id) FROM billing.holds h
    WHERE h.state IN ('settled', 'released', 'estimated')
      AND NOT EXISTS (SELECT FROM billing.requests r WHERE r.request_id = h.request_id)
    UNION ALL
    SELECT 'decided_charges_are_in_the_ledger', count(*), min(d.quarantine_id)::text
    FROM billing.quarantine_decisions d
    JOIN billing.quarantine q USING (quarantine_id)
    LEFT JOIN billing.requests r ON r.request_id = q.request_id
    WHERE d.decision = 'charge' AND (r.price_nano_usd, r.absorbed_nano_usd) IS DISTINCT FROM (d.charged_nano_usd, 0)
    UNION ALL
    SELECT 'spending_is_what_requests_have_paid', count(*), min(id) FROM (
        SELECT id FROM paid FULL JOIN kept USING (account_id, kind, id, quarter) WHERE paid.amount IS DISTINCT FROM kept.amount
        UNION ALL
        SELECT spender_id FROM billing.spending
        WHERE amount_nano_usd IS DISTINCT FROM (SELECT sum(quarter) FROM unnest(quarters) AS quarter)
    ) spent
    UNION ALL
    SELECT 'seals_are_whole', count(*), min(seal_id)::text FROM billing.broken_seals() AS broken (seal_id)
    UNION ALL
    SELECT 'invoices_join_and_add_up', count(*), min(invoice_id) FROM (
        SELECT invoice_id, opening_nano_usd, closing_nano_usd, after_transaction_id,
               lag(closing_nano_usd, 1, 0::bigint) OVER of_org AS closing_before,
               lag(last_transaction_id, 1, 0::bigint) OVER of_org AS last_before,
               (SELECT sum((line ->> 'amount_nano_usd')::bigint) FROM jsonb_array_elements(lines) AS line) AS moved
        FROM billing.invoices WINDOW of_org AS (PARTITION BY org_id ORDER BY number)
    ) i WHERE closing_before <> opening_nano_usd OR last_before <> after_transaction_id
        OR closing_nano_usd <> opening_nano_usd + moved
    UNION ALL
    SELECT 'recorded_requests_hold_nothing', count(*), min(h.request_id) FROM billing.holds h
    WHERE h.state = 'held' AND EXISTS (SELECT FROM billing.requests r WHERE r.request_id = h.request_id);
$$;
