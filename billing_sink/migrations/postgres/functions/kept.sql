-- Writes down what providers keep. Said again it changes nothing, and so it does if it is another organisation's: the first one stays the
-- owner. Returns the ids of which that is so.
--
-- p_objects: an array of objects with the columns of billing.kept_objects that are known when something is made.
CREATE OR REPLACE FUNCTION billing.keep_objects(p_objects jsonb) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO billing.kept_objects (
        mode, object_id, kind, org_id, project_id, key_id, provider, created_at, expires_at, about, file_bytes)
    SELECT mode, object_id, kind, org_id, project_id, key_id, provider, created_at, expires_at, about, coalesce(file_bytes, 0)
    FROM jsonb_to_recordset(p_objects) AS given (
        mode text, object_id text, kind text, org_id text, project_id text, key_id text, provider text, created_at timestamptz,
        expires_at timestamptz, about text, file_bytes bigint)
    -- Two sinks may be told of the same ones: none waits for the other in turn.
    ORDER BY mode, object_id
    ON CONFLICT DO NOTHING;
    RETURN QUERY
    SELECT k.object_id FROM jsonb_to_recordset(p_objects) AS given (mode text, object_id text, org_id text)
    JOIN billing.kept_objects k USING (mode, object_id)
    WHERE k.org_id <> given.org_id;
END $$;

-- Writes down what providers keep no longer, of those that an organisation has.
--
-- p_objects: an array of objects (mode, object_id, org_id, forgotten_at).
CREATE OR REPLACE FUNCTION billing.forget_objects(p_objects jsonb) RETURNS void
LANGUAGE sql VOLATILE AS $$
    UPDATE billing.kept_objects k SET forgotten_at = given.forgotten_at
    FROM jsonb_to_recordset(p_objects) AS given (mode text, object_id text, org_id text, forgotten_at timestamptz)
    WHERE (k.mode, k.object_id, k.org_id) = (given.mode, given.object_id, given.org_id) AND k.forgotten_at IS NULL
$$;

-- How many files of an organisation are kept, and how long they are together.
CREATE OR REPLACE FUNCTION billing.kept_files(p_org_id text, p_mode text, p_now timestamptz, OUT files bigint, OUT bytes bigint)
LANGUAGE sql STABLE AS $$
    SELECT count(*), coalesce(sum(file_bytes), 0)::bigint FROM billing.kept_objects
    WHERE org_id = p_org_id AND mode = p_mode AND kind = 'file' AND forgotten_at IS NULL AND (expires_at IS NULL OR expires_at > p_now)
$$;
