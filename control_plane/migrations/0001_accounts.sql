-- what: organisations, projects, API keys and machine tokens
-- why: who may call the gateway, and on whose account
-- running version survives it: yes, nothing ran before
CREATE SCHEMA accounts;

CREATE TABLE accounts.organizations (
    org_id      text PRIMARY KEY,
    name        text NOT NULL CHECK (name <> ''),
    disabled_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE accounts.projects (
    project_id text PRIMARY KEY,
    org_id     text NOT NULL REFERENCES accounts.organizations,
    name       text NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, name),
    UNIQUE (org_id, project_id)
);

CREATE TABLE accounts.api_keys (
    key_id         text PRIMARY KEY,
    org_id         text NOT NULL,
    project_id     text NOT NULL,
    name           text NOT NULL CHECK (name <> ''),
    key_hash       bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
    -- Shell-style patterns of model names; empty means every model.
    models_allowed text[] NOT NULL DEFAULT '{}',
    disabled_at    timestamptz,
    expires_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (org_id, project_id) REFERENCES accounts.projects (org_id, project_id)
);
CREATE INDEX api_keys_of_org ON accounts.api_keys (org_id);

CREATE TABLE accounts.machine_tokens (
    token_id    text PRIMARY KEY,
    name        text NOT NULL,
    token_hash  bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    role        text NOT NULL CHECK (role IN ('platform_operator')),
    disabled_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Whoever keeps keys in memory hears of every change to one, or to the organisation behind it.
CREATE FUNCTION accounts.announce_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', encode(coalesce(OLD.key_hash, NEW.key_hash), 'hex'));
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON accounts.api_keys
    FOR EACH ROW EXECUTE FUNCTION accounts.announce_api_key();

CREATE FUNCTION accounts.announce_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', encode(key_hash, 'hex')) FROM accounts.api_keys WHERE org_id = NEW.org_id;
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER UPDATE ON accounts.organizations
    FOR EACH ROW WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at)
    EXECUTE FUNCTION accounts.announce_keys_of_org();

-- What admission and the API ask about a key: one question, one answer. No row for a key that does not exist.
CREATE FUNCTION accounts.find_key(p_key_hash bytea)
RETURNS TABLE (key_id text, org_id text, project_id text, models_allowed text[], is_disabled boolean,
               expires_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT key.key_id, key.org_id, key.project_id, key.models_allowed,
           key.disabled_at IS NOT NULL OR org.disabled_at IS NOT NULL, key.expires_at
    FROM accounts.api_keys key JOIN accounts.organizations org USING (org_id)
    WHERE key.key_hash = p_key_hash;
$$;
