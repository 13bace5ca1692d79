-- Records attempts that failed. Returns the positions, from 0 on, of those that are recorded already with another input; for the caller
-- to quarantine. The same attempt with the same input changes nothing.
--
-- p_attempts: an array of objects with the columns of billing.attempts (input_hash in hex); none of them twice. Whoever looks after
-- providers is told at once.
CREATE OR REPLACE FUNCTION billing.record_attempts(p_attempts jsonb) RETURNS SETOF integer
LANGUAGE sql VOLATILE AS $$
    SELECT pg_notify('attempts_recorded', '');
    WITH given AS (
        SELECT (position - 1)::integer AS position, request_id, started_at, decode(input_hash, 'hex') AS input_hash, provider,
            upstream_model, host, status, response_flags, response_details, duration_ms, bytes_received, bytes_sent,
            coalesce(own_key, false) AS own_key, org_id, coalesce(own_reply, false) AS own_reply
        FROM ROWS FROM (jsonb_to_recordset(p_attempts) AS (
            request_id text, started_at timestamptz, input_hash text, provider text, upstream_model text, host text,
            status integer, response_flags text, response_details text, duration_ms bigint, bytes_received bigint,
            bytes_sent bigint, own_key boolean, org_id text, own_reply boolean)) WITH ORDINALITY
            AS input (request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags,
                response_details, duration_ms, bytes_received, bytes_sent, own_key, org_id, own_reply,
                position)
    ), recorded AS (
        INSERT INTO billing.attempts (
            request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags, response_details,
            duration_ms, bytes_received, bytes_sent, own_key, org_id, own_reply)
        SELECT request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags, response_details,
            duration_ms, bytes_received, bytes_sent, own_key, org_id, own_reply
        FROM given ORDER BY position
        ON CONFLICT DO NOTHING
    )
    -- Seen as it was before: what is recorded now has no row in it.
    SELECT g.position FROM given g JOIN billing.attempts a USING (request_id, started_at)
    WHERE a.input_hash <> g.input_hash
$$;

-- Keeps what providers have said of their limits, unless something newer is known.
--
-- p_limits: an array of objects with the columns of billing.provider_limits; no two of one provider and model, and in their order, in
-- which rows are locked.
CREATE OR REPLACE FUNCTION billing.record_limits(p_limits jsonb) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO billing.provider_limits AS known
    SELECT * FROM jsonb_populate_recordset(NULL::billing.provider_limits, p_limits)
    ON CONFLICT (provider, upstream_model) DO UPDATE SET told_at = excluded.told_at, status = excluded.status,
        retry_at = excluded.retry_at, requests_remaining = excluded.requests_remaining,
        requests_reset_at = excluded.requests_reset_at, tokens_remaining = excluded.tokens_remaining,
        tokens_reset_at = excluded.tokens_reset_at, free_at = excluded.free_at
    WHERE excluded.told_at > known.told_at;
    SELECT pg_notify('attempts_recorded', '');
$$;
