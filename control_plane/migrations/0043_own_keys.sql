-- what: keys of organisations for providers, whether a provider allows them, and what share of the price is charged for their requests
-- why: an organisation that pays a provider itself sends its own key there
-- running version survives it: yes, until an organisation has such a key, of which it knows nothing: it would send ours

ALTER TABLE catalog.providers
    ADD COLUMN own_keys        text NOT NULL DEFAULT 'refused' CHECK (own_keys IN ('allowed', 'refused')),
    -- Of the list price, in millionths. What it was at a revision is in catalog.own_key_fees.
    ADD COLUMN own_key_fee_ppm integer NOT NULL DEFAULT 0 CHECK (own_key_fee_ppm BETWEEN 0 AND 1000000);

CREATE TABLE catalog.own_keys (
    org_id     text NOT NULL REFERENCES accounts.organizations,
    provider   text NOT NULL REFERENCES catalog.providers ON DELETE CASCADE,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    -- As in catalog.providers.
    credential bytea NOT NULL,
    -- What is shown of it.
    hint       text NOT NULL,
    -- Whether ours is tried when this one is refused.
    fallback   boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    revision   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, provider)
);
CREATE INDEX own_keys_at_provider ON catalog.own_keys (provider);

-- The revisions at which there came to be other keys of organisations; another credential or fallback is none. Envoy's configuration says up
-- to which one it has come, and admission goes by that one.
CREATE TABLE catalog.own_key_changes (
    revision bigint PRIMARY KEY REFERENCES catalog.revisions
);

-- What is charged of requests with such keys, from a revision on; nothing before the first. Never updated by a later revision.
CREATE TABLE catalog.own_key_fees (
    provider text NOT NULL,
    revision bigint NOT NULL REFERENCES catalog.revisions,
    fee_ppm  integer NOT NULL,
    PRIMARY KEY (provider, revision)
);

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.own_keys FOR EACH ROW
    WHEN (current_setting('tollgate.resealing', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.own_keys FOR EACH ROW
    WHEN (current_setting('tollgate.resealing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION catalog.record_change('org_id', 'provider');

-- What these do is in functions/own_keys.sql.
CREATE FUNCTION catalog.note_own_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION catalog.note_own_key_fee() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION catalog.forget_own_keys() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR DELETE ON catalog.own_keys FOR EACH ROW EXECUTE FUNCTION catalog.note_own_key();
CREATE TRIGGER note_fee AFTER INSERT OR UPDATE OF own_key_fee_ppm ON catalog.providers
    FOR EACH ROW EXECUTE FUNCTION catalog.note_own_key_fee();
-- Behind `record`, by its name: undone, the provider is last what it was.
CREATE TRIGGER then_forget_own_keys AFTER UPDATE ON catalog.providers FOR EACH ROW EXECUTE FUNCTION catalog.forget_own_keys();

CREATE VIEW catalog.sealed_own_keys AS
    SELECT org_id, provider, credential FROM catalog.own_keys
    UNION
    SELECT image ->> 'org_id', image ->> 'provider', (image ->> 'credential')::bytea
    FROM catalog.changes, LATERAL (VALUES (before_row), (after_row)) AS images (image)
    WHERE relation = 'own_keys' AND image IS NOT NULL;
