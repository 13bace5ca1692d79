-- The number of this transaction. It keeps the one row until it commits, so it needs no second one.
CREATE OR REPLACE FUNCTION accounts.next_key_change() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
BEGIN
    UPDATE accounts.key_changes SET number = number + 1, taken_by = pg_current_xact_id()
    WHERE taken_by IS DISTINCT FROM pg_current_xact_id() RETURNING number INTO v_number;
    IF NOT FOUND THEN
        SELECT number INTO STRICT v_number FROM accounts.key_changes;
    END IF;
    RETURN v_number;
END $$;

-- A change of a key has a number and a time.
CREATE OR REPLACE FUNCTION accounts.stamp_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.change_number := accounts.next_key_change();
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;

-- The same for all keys of an organisation or a project at once, in the row of that.
CREATE OR REPLACE FUNCTION accounts.stamp_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.keys_change_number := accounts.next_key_change();
    NEW.keys_changed_at := clock_timestamp();
    RETURN NEW;
END $$;

-- The mode of a key never changes.
CREATE OR REPLACE FUNCTION accounts.keep_mode() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.mode <> OLD.mode THEN
        RAISE EXCEPTION 'the mode of a key never changes';
    END IF;
    RETURN NEW;
END $$;

-- One announcement for a change, with every hash the key has or had: of a new one, its absence may be remembered.
CREATE OR REPLACE FUNCTION accounts.announce_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint := CASE WHEN TG_OP = 'DELETE' THEN accounts.next_key_change() ELSE NEW.change_number END;
BEGIN
    PERFORM pg_notify('api_key_changed', v_number || ':' || string_agg(DISTINCT encode(hash, 'hex'), ','))
    FROM unnest(ARRAY[OLD.key_hash, NEW.key_hash, OLD.previous_key_hash, NEW.previous_key_hash]) AS hash
    WHERE hash IS NOT NULL;
    RETURN NULL;
END $$;

-- Closing or opening an organisation, another time zone or other limits change all its keys at once, and none of their rows: one announcement.
CREATE OR REPLACE FUNCTION accounts.announce_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', NEW.keys_change_number || ':' || NEW.org_id);
    RETURN NULL;
END $$;

-- So do other budgets or limits of a project.
CREATE OR REPLACE FUNCTION accounts.announce_keys_of_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', NEW.keys_change_number || ':' || NEW.project_id);
    RETURN NULL;
END $$;

-- What ext_authz has to know of a key, by its hash or that of the key before its last rotation; no row if there is none.
CREATE OR REPLACE FUNCTION accounts.find_key(p_key_hash bytea)
RETURNS TABLE (key_id text, org_id text, project_id text, models_allowed text[], is_disabled boolean,
               expires_at timestamptz, ip_allowed text[], mode text, time_zone text,
               key_per_day_nano_usd bigint, key_per_month_nano_usd bigint,
               project_per_day_nano_usd bigint, project_per_month_nano_usd bigint,
               requests_per_minute_max integer, tokens_per_minute_max integer, concurrency_max integer,
               project_requests_per_minute_max integer, project_tokens_per_minute_max integer, project_concurrency_max integer,
               org_requests_per_minute_max integer, org_tokens_per_minute_max integer, org_concurrency_max integer)
LANGUAGE sql STABLE AS $$
    SELECT key.key_id, key.org_id, key.project_id, key.models_allowed,
           key.disabled_at IS NOT NULL OR key.revoked_at IS NOT NULL OR org.disabled_at IS NOT NULL,
           -- The predecessor of a rotated key works for a while, and never longer than the key.
           CASE WHEN key.key_hash = p_key_hash THEN key.expires_at
                ELSE least(key.expires_at, key.previous_valid_until) END,
           key.ip_allowed::text[], key.mode, org.time_zone, key.budget_per_day_nano_usd, key.budget_per_month_nano_usd,
           project.budget_per_day_nano_usd, project.budget_per_month_nano_usd,
           key.requests_per_minute_max, key.tokens_per_minute_max, key.concurrency_max,
           project.requests_per_minute_max, project.tokens_per_minute_max, project.concurrency_max,
           org.requests_per_minute_max, org.tokens_per_minute_max, org.concurrency_max
    FROM accounts.api_keys key
    JOIN accounts.organizations org USING (org_id)
    JOIN accounts.projects project USING (project_id)
    WHERE key.key_hash = p_key_hash OR key.previous_key_hash = p_key_hash;
$$;

-- The same of a key by its id, for billing_sink, which is told of what ext_authz has admitted with it.
CREATE OR REPLACE FUNCTION accounts.find_key_by_id(p_key_id text)
RETURNS TABLE (key_id text, org_id text, project_id text, models_allowed text[], is_disabled boolean,
               expires_at timestamptz, ip_allowed text[], mode text, time_zone text,
               key_per_day_nano_usd bigint, key_per_month_nano_usd bigint,
               project_per_day_nano_usd bigint, project_per_month_nano_usd bigint,
               requests_per_minute_max integer, tokens_per_minute_max integer, concurrency_max integer,
               project_requests_per_minute_max integer, project_tokens_per_minute_max integer, project_concurrency_max integer,
               org_requests_per_minute_max integer, org_tokens_per_minute_max integer, org_concurrency_max integer)
LANGUAGE sql STABLE AS $$
    SELECT found.* FROM accounts.api_keys key CROSS JOIN LATERAL accounts.find_key(key.key_hash) found WHERE key.key_id = p_key_id;
$$;

-- Writes down when keys were used. Called by ext_authz with many at once. A key that was written down less than a minute ago
-- by another process, or that somebody is changing right now, waits for its next use.
CREATE OR REPLACE FUNCTION accounts.touch_keys(p_key_ids text[], p_used_at timestamptz[]) RETURNS void LANGUAGE sql AS $$
    WITH due AS (
        SELECT k.key_id, u.used_at
        FROM unnest(p_key_ids, p_used_at) AS u (key_id, used_at) JOIN accounts.api_keys k USING (key_id)
        WHERE k.last_used_at IS NULL OR k.last_used_at < u.used_at - interval '50 seconds'
        ORDER BY k.key_id FOR NO KEY UPDATE OF k SKIP LOCKED
    )
    UPDATE accounts.api_keys k SET last_used_at = due.used_at FROM due WHERE k.key_id = due.key_id;
$$;
