-- What requests behind a place in the order of transactions come to, at each provider: live ones that a provider answered, and charges us for.
CREATE OR REPLACE FUNCTION billing.sums_behind(p_written_by xid8, p_seq bigint, p_until_written_by xid8, p_until_seq bigint)
RETURNS TABLE (provider text, hour timestamptz, upstream_model text, outcome text, measure text, amount bigint)
LANGUAGE sql STABLE AS $$
    SELECT r.provider, date_trunc('hour', r.started_at, 'UTC'),
        -- Rows from before it was written down: the name that the provider has for the model now.
        coalesce(r.upstream_model, d.upstream_model, r.model, ''), r.outcome, m.measure, sum(m.amount)::bigint
    FROM billing.requests r
    LEFT JOIN catalog.deployments d ON d.model = r.model AND d.provider = r.provider AND r.upstream_model IS NULL
    CROSS JOIN LATERAL (
        VALUES ('requests', 1), ('cost_nano_usd', r.cost_nano_usd),
            -- The last attempt of a request that was answered is the answer.
            ('failed_attempts', greatest(r.attempts - CASE r.outcome WHEN 'released' THEN 0 ELSE 1 END, 0))
        UNION ALL SELECT key, value::bigint FROM jsonb_each_text(r.meters)
    ) AS m (measure, amount)
    WHERE (r.written_by, r.seq) > (p_written_by, p_seq) AND (r.written_by, r.seq) <= (p_until_written_by, p_until_seq)
      AND r.mode = 'live' AND r.provider IS NOT NULL AND NOT r.own_key AND m.amount <> 0
    GROUP BY 1, 2, 3, 4, 5
$$;

-- Adds the next finished requests to billing.provider_sums, p_limit at most; returns how many there were. Like whoever copies them to
-- ClickHouse it goes by transaction, and stops before the oldest one still running. Many requests are of one
-- transaction, which the planner does not see: left to itself it may read all requests for each stretch of them.
CREATE OR REPLACE FUNCTION billing.add_up_for_providers(p_limit integer) RETURNS integer LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    v_from  billing.export_cursors;
    v_to    billing.export_cursors;
    v_count integer;
BEGIN
    INSERT INTO billing.export_cursors (name, written_by, seq) VALUES ('provider_sums', '0', 0) ON CONFLICT DO NOTHING;
    SELECT * INTO v_from FROM billing.export_cursors WHERE name = 'provider_sums' FOR UPDATE;
    WITH next AS (
        SELECT written_by, seq FROM billing.requests
        WHERE (written_by, seq) > (v_from.written_by, v_from.seq) AND written_by < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY written_by, seq LIMIT p_limit
    )
    SELECT 'provider_sums', last.written_by, last.seq, (SELECT count(*) FROM next)
        INTO v_to.name, v_to.written_by, v_to.seq, v_count
        FROM (SELECT * FROM next ORDER BY written_by DESC, seq DESC LIMIT 1) last;
    IF v_to.name IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO billing.provider_sums AS s
        SELECT * FROM billing.sums_behind(v_from.written_by, v_from.seq, v_to.written_by, v_to.seq)
    ON CONFLICT (provider, hour, upstream_model, outcome, measure) DO UPDATE SET amount = s.amount + excluded.amount;
    UPDATE billing.export_cursors SET written_by = v_to.written_by, seq = v_to.seq WHERE name = v_to.name;
    RETURN v_count;
END $$;

-- Everything that is added up, and what is not yet: one look, so nothing is missed and nothing counted twice.
CREATE OR REPLACE FUNCTION billing.sums_of_providers(p_since timestamptz, p_until timestamptz)
RETURNS TABLE (provider text, hour timestamptz, upstream_model text, outcome text, measure text, amount bigint)
LANGUAGE sql STABLE AS $$
    SELECT provider, hour, upstream_model, outcome, measure, amount FROM billing.provider_sums
    WHERE hour >= p_since AND hour < p_until
    UNION ALL
    SELECT b.* FROM (
        SELECT coalesce(max(written_by), '0'::xid8) AS written_by, coalesce(max(seq), 0) AS seq
        FROM billing.export_cursors WHERE name = 'provider_sums'
    ) added_up,
    billing.sums_behind(added_up.written_by, added_up.seq, '18446744073709551615', 9223372036854775807) b
    WHERE b.hour >= p_since AND b.hour < p_until
$$;

-- What a provider served in a time. Lines in quarantine have an outcome of their own: the provider has counted what they used, and
-- nobody here has.
CREATE OR REPLACE FUNCTION billing.used_at_provider(p_provider text, p_since timestamptz, p_until timestamptz)
RETURNS TABLE (hour timestamptz, upstream_model text, outcome text, measure text, amount bigint) LANGUAGE sql STABLE AS $$
    SELECT hour, upstream_model, outcome, measure, sum(amount)::bigint FROM (
        SELECT hour, upstream_model, outcome, measure, amount FROM billing.sums_of_providers(p_since, p_until)
        WHERE provider = p_provider
        UNION ALL
        SELECT date_trunc('hour', (q.request ->> 'started_at')::timestamptz, 'UTC'),
            coalesce(q.request ->> 'upstream_model', q.request ->> 'model', ''), 'quarantined', 'requests', 1
        FROM billing.quarantine q
        WHERE q.request ->> 'provider' = p_provider AND NOT coalesce((q.request ->> 'own_key')::boolean, false) AND coalesce(q.request ->> 'mode', 'live') = 'live'
          AND (q.request ->> 'started_at')::timestamptz >= p_since AND (q.request ->> 'started_at')::timestamptz < p_until
    ) used GROUP BY hour, upstream_model, outcome, measure
$$;

-- What may have reached a provider in a time and is on no line of it: attempts that failed before another provider answered, and
-- requests that were never heard of again.
CREATE OR REPLACE FUNCTION billing.unaccounted_for(
    p_provider text, p_since timestamptz, p_until timestamptz,
    OUT failed_attempts_elsewhere bigint, OUT expired_holds bigint, OUT unknown_slices_nano_usd bigint
) LANGUAGE sql STABLE AS $$
    SELECT
        (SELECT coalesce(sum(amount), 0)::bigint FROM billing.sums_of_providers(p_since, p_until)
         WHERE provider <> p_provider AND measure = 'failed_attempts'),
        (SELECT count(*) FROM billing.holds h JOIN billing.accounts a USING (account_id)
         WHERE h.state = 'expired' AND h.placed_at >= p_since AND h.placed_at < p_until AND a.mode = 'live'),
        (SELECT coalesce(sum(s.unknown_nano_usd), 0)::bigint FROM billing.slices s JOIN billing.accounts a USING (account_id)
         WHERE s.opened_at >= p_since AND s.opened_at < p_until AND a.mode = 'live')
$$;

-- Keeps what a comparison has found; returns the id of it.
CREATE OR REPLACE FUNCTION billing.keep_reconciliation(
    p_provider text, p_actor_kind text, p_actor_id text, p_format text, p_file_sha256 text, p_first_day date, p_last_day date,
    p_threshold_ppm integer, p_drift_ppm bigint, p_beyond integer, p_report jsonb
) RETURNS billing.reconciliations LANGUAGE sql AS $$
    INSERT INTO billing.reconciliations (
        provider, actor_kind, actor_id, format, file_sha256, first_day, last_day, threshold_ppm, drift_ppm, beyond, report)
    VALUES (p_provider, p_actor_kind, p_actor_id, p_format, p_file_sha256, p_first_day, p_last_day, p_threshold_ppm, p_drift_ppm,
        p_beyond, p_report)
    RETURNING *
$$;
