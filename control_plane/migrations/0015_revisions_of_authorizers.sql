-- what: processes of ext_authz say which revision of the catalogue they serve, and a change is applied when they serve it
-- why: an operation was applied while a request could still meet a process that knew only the catalogue before it
-- running version survives it: yes; a process that does not say what it serves is not waited for
ALTER TABLE accounts.authorizers
    -- 0 until it has read the catalogue; NULL: it is of a version that does not say.
    ADD COLUMN catalog_revision bigint;

-- One that was not heard from for longer does not count: it is gone, or cut off from here.
CREATE VIEW accounts.live_authorizers AS
    SELECT * FROM accounts.authorizers WHERE heard_at > now() - interval '5 seconds';

DROP FUNCTION accounts.report_authorizer(text, bigint, interval);
-- As before, and the revision of the catalogue that it serves.
CREATE FUNCTION accounts.report_authorizer(
    p_instance_id text, p_change_number bigint, p_age interval, p_catalog_revision bigint DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_before accounts.authorizers;
BEGIN
    SELECT * INTO v_before FROM accounts.authorizers WHERE instance_id = p_instance_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO accounts.authorizers (instance_id, change_number, catalog_revision)
        VALUES (p_instance_id, p_change_number, p_catalog_revision);
    ELSE
        UPDATE accounts.authorizers SET heard_at = clock_timestamp(), change_number = p_change_number,
            catalog_revision = p_catalog_revision
        WHERE instance_id = p_instance_id;
    END IF;
    IF p_change_number > coalesce(v_before.change_number, -1) THEN
        INSERT INTO accounts.key_uptakes (instance_id, change_number, taken_up_at)
        VALUES (p_instance_id, p_change_number, clock_timestamp() - p_age);
    END IF;
    IF p_catalog_revision > v_before.catalog_revision THEN
        -- Operations may have waited for this: every control plane looks.
        PERFORM pg_notify('authorizer_changed', p_catalog_revision::text);
    END IF;
END $$;

ALTER TABLE catalog.operations
    -- How many processes of ext_authz have read it, when it was applied; NULL: applied when nobody asked them.
    ADD COLUMN authorizers integer;

-- The ids of those that a revision has not reached: Envoys, and processes of ext_authz.
CREATE FUNCTION catalog.waiting_for(p_revision bigint) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT node_id FROM catalog.connected_nodes WHERE accepted_revision < p_revision
        UNION ALL
        SELECT instance_id FROM accounts.live_authorizers WHERE catalog_revision < p_revision
    );
$$;

-- As before; an operation is applied when every process of ext_authz that is there serves its revision as well. One that starts
-- is there before it reads, so it cannot serve an older one unseen.
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
                                     refusal, types)
    SELECT p_control_plane, n.stream, n.node_id, n.connected_at, n.accepted_revision, n.refused_revision, n.refusal, n.types
    FROM jsonb_to_recordset(p_nodes) AS n (
        stream bigint, node_id text, connected_at timestamptz, accepted_revision bigint, refused_revision bigint,
        refusal text, types jsonb)
    ON CONFLICT (control_plane, stream) DO UPDATE SET accepted_revision = excluded.accepted_revision,
        refused_revision = excluded.refused_revision, refusal = excluded.refusal, types = excluded.types, seen_at = now();

    IF EXISTS (SELECT FROM catalog.operations WHERE state = 'pending') THEN
        UPDATE catalog.operations o SET state = 'applied', finished_at = now(),
            nodes = (SELECT count(*) FROM catalog.connected_nodes),
            authorizers = (SELECT count(*) FROM accounts.live_authorizers WHERE catalog_revision IS NOT NULL)
        WHERE o.state = 'pending' AND o.revision <= p_published AND catalog.waiting_for(o.revision) = '{}';
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
