-- what: providers, models, deployments, prices and routes, under one revision counter
-- why: Envoy's configuration, admission and rating all read the same catalogue
-- running version survives it: yes, nothing ran before
CREATE SCHEMA catalog;

-- One row per transaction that changed anything below. A price is pinned by the revision at which a request was admitted.
CREATE TABLE catalog.revisions (
    revision   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE catalog.providers (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    kind       text NOT NULL CHECK (kind IN ('openai', 'anthropic', 'gemini')),
    base_url   text NOT NULL CHECK (base_url ~ '^https?://[^/]'),
    -- AES-256-GCM under the installation's credential key; see control_plane/catalog/credentials.py.
    credential bytea,
    -- 'demo' rows follow the local stack's simulator; what an operator has edited is theirs.
    managed_by text NOT NULL DEFAULT 'operator' CHECK (managed_by IN ('operator', 'demo'))
);

CREATE TABLE catalog.models (
    name              text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,199}$'),
    owned_by          text NOT NULL,
    context_tokens    integer NOT NULL CHECK (context_tokens > 0),
    max_output_tokens integer NOT NULL CHECK (max_output_tokens > 0),
    created_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE catalog.deployments (
    model          text NOT NULL REFERENCES catalog.models,
    provider       text NOT NULL REFERENCES catalog.providers,
    upstream_model text NOT NULL CHECK (upstream_model ~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,199}$'),
    -- Where it stands in the chain of its model: groups are tried in order, members of one group share by weight.
    priority       smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 15),
    weight         integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    PRIMARY KEY (model, provider)
);

-- The revision of this transaction; the first call in it makes one.
CREATE FUNCTION catalog.current_revision() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_revision bigint := nullif(current_setting('tollgate.catalog_revision', true), '')::bigint;
BEGIN
    IF v_revision IS NULL THEN
        -- One writer at a time: revisions are committed in the order of their numbers, so who has seen one has seen all
        -- before it.
        PERFORM pg_advisory_xact_lock(hashtext('tollgate.catalog'));
        INSERT INTO catalog.revisions DEFAULT VALUES RETURNING revision INTO v_revision;
        PERFORM set_config('tollgate.catalog_revision', v_revision::text, true);
    END IF;
    RETURN v_revision;
END $$;

-- Never updated: a new price is a new row with a newer revision. All meters of a deployment are written together.
CREATE TABLE catalog.prices (
    model                   text NOT NULL,
    provider                text NOT NULL,
    revision                bigint NOT NULL REFERENCES catalog.revisions,
    meter                   text NOT NULL CHECK (meter ~ '^[a-z][a-z0-9_]*$'),
    cost_nano_usd_per_mtok  bigint NOT NULL CHECK (cost_nano_usd_per_mtok >= 0),
    price_nano_usd_per_mtok bigint NOT NULL CHECK (price_nano_usd_per_mtok >= 0),
    PRIMARY KEY (model, provider, revision, meter),
    FOREIGN KEY (model, provider) REFERENCES catalog.deployments (model, provider)
);

CREATE FUNCTION catalog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
-- A price holds from the revision that brings it, whatever the statement says.
CREATE FUNCTION catalog.stamp_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := catalog.current_revision();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON catalog.prices FOR EACH ROW EXECUTE FUNCTION catalog.stamp_price();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.prices
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();

-- Every transaction that changes the catalogue makes a revision, whoever wrote its statements, and every revision is
-- announced. The announcement leaves with the commit, so a listener that reads at once sees the change.
CREATE FUNCTION catalog.make_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM catalog.current_revision();
    RETURN NULL;
END $$;
CREATE TRIGGER make_revision AFTER INSERT OR UPDATE OR DELETE ON catalog.providers
    FOR EACH ROW EXECUTE FUNCTION catalog.make_revision();
CREATE TRIGGER make_revision AFTER INSERT OR UPDATE OR DELETE ON catalog.models
    FOR EACH ROW EXECUTE FUNCTION catalog.make_revision();
CREATE TRIGGER make_revision AFTER INSERT OR UPDATE OR DELETE ON catalog.deployments
    FOR EACH ROW EXECUTE FUNCTION catalog.make_revision();

CREATE FUNCTION catalog.announce_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('catalog_changed', NEW.revision::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT ON catalog.revisions
    FOR EACH ROW EXECUTE FUNCTION catalog.announce_revision();
