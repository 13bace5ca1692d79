-- what: sealed values have two layers (control_plane/sealing.py) and can be sealed anew under another key of the installation
-- why: a change of that key touches no content, and a value says which key opens it
-- running version survives it: no, it reads one layer
--
-- What was sealed in one layer is made again: signing keys when the next one is needed, kept answers not at all, the demo's
-- credentials by its seed. A credential of an operator stays unreadable, and its provider left out, until they write it again.
DELETE FROM accounts.signing_keys;
DELETE FROM accounts.idempotency_keys;
UPDATE catalog.providers SET credential = NULL WHERE managed_by = 'demo' AND credential IS NOT NULL;

-- A credential that is sealed anew is the same one: no revision, nothing to undo, nothing an operator would see.
DROP TRIGGER stamp ON catalog.providers;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON catalog.providers FOR EACH ROW
    WHEN (current_setting('tollgate.resealing', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION catalog.stamp_row();
DROP TRIGGER record ON catalog.providers;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON catalog.providers FOR EACH ROW
    WHEN (current_setting('tollgate.resealing', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION catalog.record_change('name');

-- Every sealed credential: those in force, and those that an undone change would put back.
CREATE VIEW catalog.sealed_credentials AS
    SELECT name, credential FROM catalog.providers WHERE credential IS NOT NULL
    UNION
    SELECT image ->> 'name', (image ->> 'credential')::bytea
    FROM catalog.changes, LATERAL (VALUES (before_row), (after_row)) AS images (image)
    WHERE relation = 'providers' AND image ->> 'credential' IS NOT NULL;

-- Writes p_new wherever p_old is: what is remembered of the row keeps being equal to the row.
CREATE FUNCTION catalog.reseal_credential(p_name text, p_old bytea, p_new bytea) RETURNS void
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
