-- what: an Envoy that does not answer what it was sent is silent, and no operation waits for it
-- why: one that stood still, or sat behind a network that swallows, kept every change pending for ever
-- running version survives it: yes, it says of none that it is silent
ALTER TABLE catalog.envoy_nodes ADD COLUMN is_silent boolean NOT NULL DEFAULT false;
CREATE OR REPLACE VIEW catalog.connected_nodes AS
    SELECT * FROM catalog.envoy_nodes WHERE seen_at > now() - interval '10 seconds';

-- Those whose word counts.
CREATE VIEW catalog.answering_nodes AS SELECT * FROM catalog.connected_nodes WHERE NOT is_silent;

CREATE OR REPLACE FUNCTION catalog.waiting_for(p_revision bigint) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT node_id FROM catalog.answering_nodes WHERE accepted_revision < p_revision
        UNION ALL
        SELECT instance_id FROM accounts.live_authorizers WHERE catalog_revision < p_revision
    );
$$;

-- As before; silent nodes neither hold up an operation nor undo one.
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
