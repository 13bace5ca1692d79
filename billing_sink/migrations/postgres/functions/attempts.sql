-- Records attempts that failed. Returns the positions, from 0 on, of those that are recorded already with another input; for the caller
-- to quarantine. The same attempt with the same input changes nothing.
--
-- p_attempts: an array of objects with the columns of billing.attempts (input_hash in hex); none of them twice.
CREATE OR REPLACE FUNCTION billing.record_attempts(p_attempts jsonb) RETURNS SETOF integer
LANGUAGE sql VOLATILE AS $$
    WITH given AS (
        SELECT (position - 1)::integer AS position, request_id, started_at, decode(input_hash, 'hex') AS input_hash, provider,
            upstream_model, host, status, response_flags, response_details, duration_ms, bytes_received, bytes_sent
        FROM ROWS FROM (jsonb_to_recordset(p_attempts) AS (
            request_id text, started_at timestamptz, input_hash text, provider text, upstream_model text, host text,
            status integer, response_flags text, response_details text, duration_ms bigint, bytes_received bigint,
            bytes_sent bigint)) WITH ORDINALITY
            AS input (request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags,
                response_details, duration_ms, bytes_received, bytes_sent, position)
    ), recorded AS (
        INSERT INTO billing.attempts (
            request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags, response_details,
            duration_ms, bytes_received, bytes_sent)
        SELECT request_id, started_at, input_hash, provider, upstream_model, host, status, response_flags, response_details,
            duration_ms, bytes_received, bytes_sent
        FROM given ORDER BY position
        ON CONFLICT DO NOTHING
    )
    -- Seen as it was before: what is recorded now has no row in it.
    SELECT g.position FROM given g JOIN billing.attempts a USING (request_id, started_at)
    WHERE a.input_hash <> g.input_hash
$$;
