-- what: what a key may do besides models: networks, limits, a predecessor that still works for a while; find_key says so
-- why: keys are managed through the API, and rotated without an outage
-- running version survives it: yes, it reads the columns of find_key by name, and those it knows stay
ALTER TABLE accounts.api_keys
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN hint text NOT NULL DEFAULT '',
    ADD COLUMN ip_allowed cidr[] NOT NULL DEFAULT '{}',
    ADD COLUMN budget_per_day_nano_usd bigint CHECK (budget_per_day_nano_usd >= 0),
    ADD COLUMN budget_per_month_nano_usd bigint CHECK (budget_per_month_nano_usd >= 0),
    ADD COLUMN requests_per_minute_max integer CHECK (requests_per_minute_max > 0),
    ADD COLUMN tokens_per_minute_max integer CHECK (tokens_per_minute_max > 0),
    ADD COLUMN concurrency_max integer CHECK (concurrency_max > 0),
    ADD COLUMN last_used_at timestamptz,
    -- Gone for good; the row stays because requests name it.
    ADD COLUMN revoked_at timestamptz,
    ADD COLUMN previous_key_hash bytea UNIQUE CHECK (octet_length(previous_key_hash) = 32),
    ADD COLUMN previous_valid_until timestamptz,
    ADD COLUMN created_by text,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD CHECK ((previous_key_hash IS NULL) = (previous_valid_until IS NULL));

-- Every hash the key has or had: of a new one, its absence may be remembered.
CREATE OR REPLACE FUNCTION accounts.announce_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', encode(hash, 'hex'))
    FROM (SELECT DISTINCT unnest(ARRAY[OLD.key_hash, NEW.key_hash, OLD.previous_key_hash, NEW.previous_key_hash])
          AS hash) AS hashes
    WHERE hash IS NOT NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION accounts.announce_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', encode(hash, 'hex'))
    FROM accounts.api_keys, unnest(ARRAY[key_hash, previous_key_hash]) AS hash
    WHERE org_id = NEW.org_id AND hash IS NOT NULL;
    RETURN NULL;
END $$;

DROP FUNCTION accounts.find_key(bytea);
CREATE FUNCTION accounts.find_key(p_key_hash bytea)
RETURNS TABLE (key_id text, org_id text, project_id text, models_allowed text[], is_disabled boolean,
               expires_at timestamptz, ip_allowed text[])
LANGUAGE sql STABLE AS $$
    SELECT key.key_id, key.org_id, key.project_id, key.models_allowed,
           key.disabled_at IS NOT NULL OR key.revoked_at IS NOT NULL OR org.disabled_at IS NOT NULL,
           -- The predecessor of a rotated key works for a while, and never longer than the key.
           CASE WHEN key.key_hash = p_key_hash THEN key.expires_at
                ELSE least(key.expires_at, key.previous_valid_until) END,
           key.ip_allowed::text[]
    FROM accounts.api_keys key JOIN accounts.organizations org USING (org_id)
    WHERE key.key_hash = p_key_hash OR key.previous_key_hash = p_key_hash;
$$;
