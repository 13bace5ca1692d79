-- What an operation changes, as it was before, so that it can be put back.
CREATE OR REPLACE FUNCTION catalog.record_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    v_after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
BEGIN
    INSERT INTO catalog.changes (revision, relation, key, before_row, after_row)
    VALUES (catalog.current_revision(), TG_TABLE_NAME, TG_ARGV, v_before, v_after);
    RETURN NULL;
END $$;

-- Puts back what a revision changed, the latest first. Raises if any of it has been changed since. Prices stay: nothing
-- of Envoy's configuration hangs on them alone.
CREATE OR REPLACE FUNCTION catalog.put_back(p_revision bigint) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION catalog.undo_newest(p_accepted bigint, p_refused bigint, p_message text) RETURNS void
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

-- The ids of those that a revision has not reached: Envoys that answer, and processes of ext_authz.
CREATE OR REPLACE FUNCTION catalog.waiting_for(p_revision bigint) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT node_id FROM catalog.answering_nodes WHERE accepted_revision < p_revision
        UNION ALL
        SELECT instance_id FROM accounts.live_authorizers WHERE catalog_revision < p_revision
    );
$$;

-- What a control plane says of the Envoys that are connected to it, in the place of what it said before; and what follows for operations:
-- one is applied when every Envoy that answers has accepted its revision and every process of ext_authz serves it. One that an
-- Envoy, or the translation, refuses is undone. Silent nodes neither hold up an operation nor undo one.
CREATE OR REPLACE FUNCTION catalog.report_nodes(
    p_control_plane text, p_published bigint, p_untranslatable bigint, p_nodes jsonb
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_refusal record;
BEGIN
    DELETE FROM catalog.envoy_nodes
    WHERE seen_at < now() - interval '1 minute'
       OR (control_plane = p_control_plane
           AND stream NOT IN (SELECT (node ->> 'stream')::bigint FROM jsonb_array_elements(p_nodes) AS node));
    INSERT INTO catalog.envoy_nodes (control_plane, stream, node_id, connected_at, accepted_revision, refused_revision,
                                     refusal, types, is_silent)
    SELECT p_control_plane, n.stream, n.node_id, n.connected_at, n.accepted_revision, n.refused_revision, n.refusal, n.types,
           coalesce(n.is_silent, false)
    FROM jsonb_to_recordset(p_nodes) AS n (
        stream bigint, node_id text, connected_at timestamptz, accepted_revision bigint, refused_revision bigint,
        refusal text, types jsonb, is_silent boolean)
    ON CONFLICT (control_plane, stream) DO UPDATE SET accepted_revision = excluded.accepted_revision,
        refused_revision = excluded.refused_revision, refusal = excluded.refusal, types = excluded.types,
        is_silent = excluded.is_silent, seen_at = now();

    IF EXISTS (SELECT FROM catalog.operations WHERE state = 'pending') THEN
        UPDATE catalog.operations o SET state = 'applied', finished_at = now(),
            nodes = (SELECT count(*) FROM catalog.answering_nodes),
            authorizers = (SELECT count(*) FROM accounts.live_authorizers WHERE catalog_revision IS NOT NULL)
        WHERE o.state = 'pending' AND o.revision <= p_published AND catalog.waiting_for(o.revision) = '{}';
        SELECT n.accepted_revision, n.refused_revision, n.node_id || ' refused it: ' || n.refusal AS message
            INTO v_refusal FROM catalog.answering_nodes n
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
