-- A process of ext_authz ends.
CREATE OR REPLACE FUNCTION accounts.dismiss_authorizer(p_instance_id text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM accounts.authorizers WHERE instance_id = p_instance_id;
$$;

-- A process of ext_authz runs, has followed the changes of keys up to a number, some time ago, and serves a revision of the catalogue: 0 until it
-- has read it, NULL if it is of a version that does not say. Returns whether it was believed: nobody has taken up a change that is
-- still to come, and then nothing is noted.
CREATE OR REPLACE FUNCTION accounts.report_authorizer(
    p_instance_id text, p_change_number bigint, p_age interval, p_catalog_revision bigint DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_before accounts.authorizers;
BEGIN
    IF p_change_number NOT BETWEEN 0 AND (SELECT number FROM accounts.key_changes) THEN
        RETURN false;
    END IF;
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
        VALUES (p_instance_id, p_change_number, clock_timestamp() - p_age)
        ON CONFLICT (instance_id, change_number) DO NOTHING;
    END IF;
    IF p_catalog_revision > v_before.catalog_revision THEN
        -- Operations may have waited for this: every control plane looks.
        PERFORM pg_notify('authorizer_changed', p_catalog_revision::text);
    END IF;
    RETURN true;
END $$;
