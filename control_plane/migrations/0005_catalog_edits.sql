-- what: what operators say about providers, models and routes; operations, what each changed, and what Envoys made of it
-- why: the catalogue is edited through the API, and an edit that Envoy refuses is undone
-- running version survives it: no, it reads priority and weight of deployments, which move to routes
ALTER TABLE catalog.providers
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    -- Sent with every request, whatever the client says.
    ADD COLUMN headers jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN connect_timeout_ms integer CHECK (connect_timeout_ms > 0),
    ADD COLUMN connections_max integer CHECK (connections_max > 0),
    ADD COLUMN requests_max integer CHECK (requests_max > 0),
    ADD COLUMN revision bigint NOT NULL DEFAULT 0;

ALTER TABLE catalog.models
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN capabilities text[] NOT NULL DEFAULT '{}',
    ADD COLUMN deprecated_at timestamptz,
    ADD COLUMN replacement text,
    ADD COLUMN revision bigint NOT NULL DEFAULT 0;

-- Other names of models. No name is both a model's and an alias.
CREATE TABLE catalog.model_aliases (
    alias text PRIMARY KEY CHECK (alias ~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,199}$'),
    model text NOT NULL REFERENCES catalog.models
);
CREATE INDEX aliases_of_model ON catalog.model_aliases (model);
CREATE FUNCTION catalog.refuse_second_meaning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One writer at a time, as in catalog.current_revision, so that no two of them give one name two meanings.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.catalog'));
    IF EXISTS (SELECT FROM catalog.models m JOIN catalog.model_aliases a ON a.alias = m.name) THEN
        RAISE unique_violation USING MESSAGE = 'a name is a model''s and an alias';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER one_meaning AFTER INSERT OR UPDATE ON catalog.model_aliases
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_second_meaning();
CREATE TRIGGER one_meaning AFTER INSERT ON catalog.models
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_second_meaning();

-- Which providers serve a model, or all models of a pattern, in which order.
CREATE TABLE catalog.routes (
    name                  text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,199}$'),
    seq                   bigint GENERATED ALWAYS AS IDENTITY,
    -- A model's name, or a pattern in which * stands for any characters. An exact one wins, then the longest pattern.
    match                 text NOT NULL UNIQUE CHECK (match ~ '^[A-Za-z0-9*][A-Za-z0-9._/:@*-]{0,199}$'),
    published             boolean NOT NULL DEFAULT true,
    -- Organisations that may see its models; empty: all.
    orgs_allowed          text[] NOT NULL DEFAULT '{}',
    -- NULL: what the settings of control_plane say, or one attempt per group.
    attempts_max          smallint CHECK (attempts_max BETWEEN 1 AND 16),
    retry_statuses        smallint[],
    first_byte_timeout_ms integer CHECK (first_byte_timeout_ms > 0),
    idle_timeout_ms       integer CHECK (idle_timeout_ms > 0),
    revision              bigint NOT NULL DEFAULT 0
);

-- Groups are tried in order of priority; the members of one group share by weight.
CREATE TABLE catalog.route_members (
    route    text NOT NULL REFERENCES catalog.routes,
    provider text NOT NULL REFERENCES catalog.providers,
    priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 15),
    weight   integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    PRIMARY KEY (route, provider)
);

INSERT INTO catalog.routes (name, match) SELECT DISTINCT model, model FROM catalog.deployments;
INSERT INTO catalog.route_members (route, provider, priority, weight)
    SELECT model, provider, priority, weight FROM catalog.deployments;
ALTER TABLE catalog.deployments
    DROP COLUMN priority,
    DROP COLUMN weight,
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN revision bigint NOT NULL DEFAULT 0;

-- Prices outlive their deployment: requests that ran under them are rated by them.
ALTER TABLE catalog.prices DROP CONSTRAINT prices_model_provider_fkey;

-- Every hop of every model that can be served: a published route, a deployment, a price.
CREATE VIEW catalog.served AS
WITH chosen AS (
    SELECT match AS model, name AS route FROM catalog.routes WHERE published AND match NOT LIKE '%*%'
    UNION ALL
    SELECT m.name, pattern.name
    FROM catalog.models m
    CROSS JOIN LATERAL (
        SELECT r.name FROM catalog.routes r
        WHERE r.published AND r.match LIKE '%*%' AND m.name LIKE replace(replace(r.match, '_', '\_'), '*', '%')
        ORDER BY length(r.match) DESC, r.match LIMIT 1
    ) pattern
    WHERE NOT EXISTS (SELECT FROM catalog.routes exact WHERE exact.match = m.name AND exact.published)
)
SELECT chosen.model, chosen.route, member.priority, member.provider, member.weight, deployment.upstream_model
FROM chosen
JOIN catalog.route_members member USING (route)
JOIN catalog.deployments deployment ON deployment.model = chosen.model AND deployment.provider = member.provider
WHERE EXISTS (SELECT FROM catalog.prices price
              WHERE price.model = chosen.model AND price.provider = member.provider);

-- The revision of a row is that of its latest change; it is the ETag of what the API shows.
CREATE FUNCTION catalog.stamp_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := catalog.current_revision();
    RETURN NEW;
END $$;

-- What each revision changed, while that may still have to be undone.
CREATE TABLE catalog.changes (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision   bigint NOT NULL REFERENCES catalog.revisions,
    relation   text NOT NULL,
    key        text[] NOT NULL,
    before_row jsonb,
    after_row  jsonb
);
CREATE INDEX changes_of_revision ON catalog.changes (revision);
CREATE FUNCTION catalog.record_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    v_after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
BEGIN
    INSERT INTO catalog.changes (revision, relation, key, before_row, after_row)
    VALUES (catalog.current_revision(), TG_TABLE_NAME, TG_ARGV, v_before, v_after);
    RETURN NULL;
END $$;

DROP TRIGGER make_revision ON catalog.providers;
DROP TRIGGER make_revision ON catalog.models;
DROP TRIGGER make_revision ON catalog.deployments;
DROP FUNCTION catalog.make_revision();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.providers FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.models FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.deployments FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.routes FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
-- Every transaction that changes the catalogue makes a revision by this, whoever wrote its statements.
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.providers
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('name');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.models
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('name');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.model_aliases
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('alias');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.deployments
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('model', 'provider');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.routes
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('name');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.route_members
    FOR EACH ROW EXECUTE FUNCTION catalog.record_change('route', 'provider');

-- A change made through the API, and whether it is in force. One per revision.
CREATE TABLE catalog.operations (
    operation_id     text PRIMARY KEY,
    seq              bigint GENERATED ALWAYS AS IDENTITY,
    revision         bigint NOT NULL UNIQUE REFERENCES catalog.revisions,
    action           text NOT NULL,
    target           text NOT NULL,
    actor_kind       text NOT NULL,
    actor_id         text NOT NULL,
    -- rejected: refused by an Envoy, and it could not be undone because others have changed the same since.
    state            text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'applied', 'rejected', 'rolled_back')),
    -- How many Envoys have accepted it, when it was applied.
    nodes            integer,
    error            text,
    undone_by        bigint REFERENCES catalog.revisions,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK ((state = 'applied') = (nodes IS NOT NULL)),
    CHECK ((state IN ('rejected', 'rolled_back')) = (error IS NOT NULL))
);
CREATE INDEX operations_pending ON catalog.operations (revision) WHERE state = 'pending';

-- Envoys connected to any control plane. A row that is not seen any more is a control plane that is gone.
CREATE TABLE catalog.envoy_nodes (
    control_plane     text NOT NULL,
    stream            bigint NOT NULL,
    node_id           text NOT NULL,
    connected_at      timestamptz NOT NULL,
    accepted_revision bigint NOT NULL DEFAULT 0,
    refused_revision  bigint,
    refusal           text,
    -- Per resource type, as the API shows it.
    types             jsonb NOT NULL,
    seen_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (control_plane, stream)
);
CREATE VIEW catalog.connected_nodes AS
    SELECT * FROM catalog.envoy_nodes WHERE seen_at > now() - interval '10 seconds';

-- Puts back what a revision changed, the latest first. Raises if any of it has been changed since. Prices stay: nothing
-- of Envoy's configuration hangs on them alone.
CREATE FUNCTION catalog.put_back(p_revision bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c        catalog.changes;
    v_where  text;
    v_row    jsonb;
    v_names  text;
BEGIN
    FOR c IN SELECT * FROM catalog.changes WHERE revision = p_revision ORDER BY seq DESC LOOP
        SELECT string_agg(format('t.%I = $1 ->> %L', name, name), ' AND ') INTO v_where FROM unnest(c.key) AS name;
        EXECUTE format('SELECT to_jsonb(t) FROM catalog.%I t WHERE %s', c.relation, v_where)
            INTO v_row USING coalesce(c.after_row, c.before_row);
        IF v_row - 'revision' IS DISTINCT FROM c.after_row - 'revision' THEN
            SELECT string_agg(coalesce(c.after_row, c.before_row) ->> name, ' at ') INTO v_names FROM unnest(c.key) AS name;
            RAISE serialization_failure USING MESSAGE = format('%s %s has been changed since', c.relation, v_names);
        END IF;
        SELECT string_agg(quote_ident(attname), ', ') INTO v_names FROM pg_attribute
            WHERE attrelid = format('catalog.%I', c.relation)::regclass AND attnum > 0 AND NOT attisdropped
              AND attidentity = '';
        IF c.before_row IS NULL THEN
            EXECUTE format('DELETE FROM catalog.%I t WHERE %s', c.relation, v_where) USING c.after_row;
        ELSIF c.after_row IS NULL THEN
            EXECUTE format('INSERT INTO catalog.%I OVERRIDING SYSTEM VALUE
                            SELECT * FROM jsonb_populate_record(NULL::catalog.%I, $1)', c.relation, c.relation)
                USING c.before_row;
        ELSE
            EXECUTE format('UPDATE catalog.%I t SET (%s) = (SELECT %s FROM jsonb_populate_record(NULL::catalog.%I, $1))
                            WHERE %s', c.relation, v_names, v_names, c.relation, v_where) USING c.before_row;
        END IF;
    END LOOP;
    IF NOT FOUND THEN
        RAISE serialization_failure USING MESSAGE = 'a price is never removed; unpublish the route that it made servable';
    END IF;
END $$;

-- An Envoy, or the translation, refuses the newest revision, and everything up to p_accepted is fine: the newest operation
-- between is undone. If that was not the one, the next refusal undoes the one before.
CREATE FUNCTION catalog.undo_newest(p_accepted bigint, p_refused bigint, p_message text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_operation catalog.operations;
    v_state     text := 'rolled_back';
    v_message   text := p_message;
BEGIN
    -- Whoever edits waits; who has edited since is judged by what Envoy says of that.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.catalog'));
    IF p_refused < (SELECT max(revision) FROM catalog.revisions) THEN
        RETURN;
    END IF;
    -- A price can be to blame if it is the first of its deployment, which that makes servable. Other prices, and terms, are
    -- none of Envoy's business: they are in force whatever it says.
    SELECT * INTO v_operation FROM catalog.operations o
        WHERE state = 'pending' AND revision > p_accepted AND revision <= p_refused
          AND (EXISTS (SELECT FROM catalog.changes c WHERE c.revision = o.revision)
               OR EXISTS (SELECT FROM catalog.prices p WHERE p.revision = o.revision AND NOT EXISTS (
                   SELECT FROM catalog.prices older
                   WHERE older.model = p.model AND older.provider = p.provider AND older.revision < p.revision)))
        ORDER BY revision DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM catalog.put_back(v_operation.revision);
    EXCEPTION WHEN serialization_failure OR integrity_constraint_violation THEN
        v_state := 'rejected';
        v_message := p_message || ' (it could not be undone: ' || SQLERRM || ')';
    END;
    UPDATE catalog.operations SET state = v_state, error = v_message, finished_at = now(),
        undone_by = CASE v_state WHEN 'rolled_back' THEN nullif(current_setting('tollgate.catalog_revision', true), '')::bigint END
        WHERE operation_id = v_operation.operation_id;
END $$;

-- What a control plane knows of its Envoys; and what follows from it for the operations that are pending.
--
-- p_published: the revision its Envoys are offered. p_untranslatable: a newer one that could not be offered, or NULL.
-- p_nodes: an array of objects with the columns of envoy_nodes.
CREATE FUNCTION catalog.report_nodes(p_control_plane text, p_published bigint, p_untranslatable bigint, p_nodes jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_refusal record;
BEGIN
    DELETE FROM catalog.envoy_nodes
    WHERE seen_at < now() - interval '1 minute'
       OR (control_plane = p_control_plane
           AND stream NOT IN (SELECT (node ->> 'stream')::bigint FROM jsonb_array_elements(p_nodes) AS node));
    INSERT INTO catalog.envoy_nodes (control_plane, stream, node_id, connected_at, accepted_revision, refused_revision,
                                     refusal, types)
    SELECT p_control_plane, n.stream, n.node_id, n.connected_at, n.accepted_revision, n.refused_revision, n.refusal, n.types
    FROM jsonb_to_recordset(p_nodes) AS n (
        stream bigint, node_id text, connected_at timestamptz, accepted_revision bigint, refused_revision bigint,
        refusal text, types jsonb)
    ON CONFLICT (control_plane, stream) DO UPDATE SET accepted_revision = excluded.accepted_revision,
        refused_revision = excluded.refused_revision, refusal = excluded.refusal, types = excluded.types, seen_at = now();

    IF EXISTS (SELECT FROM catalog.operations WHERE state = 'pending') THEN
        UPDATE catalog.operations o SET state = 'applied', finished_at = now(),
            nodes = (SELECT count(*) FROM catalog.connected_nodes)
        WHERE o.state = 'pending' AND o.revision <= p_published
          AND NOT EXISTS (SELECT FROM catalog.connected_nodes n WHERE n.accepted_revision < o.revision);
        SELECT n.accepted_revision, n.refused_revision, n.node_id || ' refused it: ' || n.refusal AS message
            INTO v_refusal FROM catalog.connected_nodes n
            WHERE n.refused_revision > n.accepted_revision ORDER BY n.refused_revision DESC LIMIT 1;
        IF FOUND THEN
            PERFORM catalog.undo_newest(v_refusal.accepted_revision, v_refusal.refused_revision, v_refusal.message);
        ELSIF p_untranslatable > p_published THEN
            PERFORM catalog.undo_newest(p_published, p_untranslatable, 'no configuration can be made of it');
        END IF;
    END IF;
    DELETE FROM catalog.changes c WHERE NOT EXISTS (
        SELECT FROM catalog.operations o WHERE o.revision = c.revision AND o.state = 'pending');
END $$;
