-- The revision of this transaction; the first call in it makes one.
CREATE OR REPLACE FUNCTION catalog.current_revision() RETURNS bigint LANGUAGE plpgsql AS $$
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

CREATE OR REPLACE FUNCTION catalog.announce_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('catalog_changed', NEW.revision::text);
    RETURN NULL;
END $$;

-- The revision of a row is that of its latest change; it is the ETag of what the API shows.
CREATE OR REPLACE FUNCTION catalog.stamp_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := catalog.current_revision();
    RETURN NEW;
END $$;

-- A price holds from the revision that brings it, whatever the statement says.
CREATE OR REPLACE FUNCTION catalog.stamp_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := catalog.current_revision();
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION catalog.refuse_second_meaning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One writer at a time, as in catalog.current_revision, so that no two of them give one name two meanings.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.catalog'));
    IF EXISTS (SELECT FROM catalog.models m JOIN catalog.model_aliases a ON a.alias = m.name) THEN
        RAISE unique_violation USING MESSAGE = 'a name is a model''s and an alias';
    END IF;
    RETURN NULL;
END $$;

-- Writes p_new wherever p_old is: what is remembered of the row keeps being equal to the row.
CREATE OR REPLACE FUNCTION catalog.reseal_credential(p_name text, p_old bytea, p_new bytea) RETURNS void
LANGUAGE plpgsql SET tollgate.resealing = 'on' AS $$
DECLARE
    v_old constant jsonb := jsonb_build_object('name', p_name, 'credential', p_old);
    v_new constant jsonb := jsonb_build_object('credential', p_new);
BEGIN
    -- Whoever is changing the provider has committed after this, and what is remembered of that can be seen below.
    PERFORM FROM catalog.providers WHERE name = p_name FOR NO KEY UPDATE;
    UPDATE catalog.providers SET credential = p_new WHERE name = p_name AND credential = p_old;
    UPDATE catalog.changes SET
        before_row = CASE WHEN before_row @> v_old THEN before_row || v_new ELSE before_row END,
        after_row = CASE WHEN after_row @> v_old THEN after_row || v_new ELSE after_row END
    WHERE relation = 'providers' AND (before_row @> v_old OR after_row @> v_old);
END $$;
