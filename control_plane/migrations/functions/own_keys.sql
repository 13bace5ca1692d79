CREATE OR REPLACE FUNCTION catalog.note_own_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO catalog.own_key_changes (revision) VALUES (catalog.current_revision()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION catalog.note_own_key_fee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.own_key_fee_ppm <> OLD.own_key_fee_ppm THEN
        INSERT INTO catalog.own_key_fees (provider, revision, fee_ppm)
        VALUES (NEW.name, catalog.current_revision(), NEW.own_key_fee_ppm)
        ON CONFLICT (provider, revision) DO UPDATE SET fee_ppm = excluded.fee_ppm;
    END IF;
    RETURN NULL;
END $$;

-- Organisations gave their keys for one address and one way of sending them; for another one they have to give them again, like ours.
CREATE OR REPLACE FUNCTION catalog.forget_own_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.own_keys = 'refused' OR NEW.kind <> OLD.kind
        OR substring(NEW.base_url FROM '^[^/]+//[^/?#]+') IS DISTINCT FROM substring(OLD.base_url FROM '^[^/]+//[^/?#]+') THEN
        DELETE FROM catalog.own_keys WHERE provider = NEW.name;
    END IF;
    RETURN NULL;
END $$;

-- As catalog.reseal_credential, of a key of an organisation.
CREATE OR REPLACE FUNCTION catalog.reseal_own_key(p_org_id text, p_provider text, p_old bytea, p_new bytea) RETURNS void
LANGUAGE plpgsql SET tollgate.resealing = 'on' AS $$
DECLARE
    v_old constant jsonb := jsonb_build_object('org_id', p_org_id, 'provider', p_provider, 'credential', p_old);
    v_new constant jsonb := jsonb_build_object('credential', p_new);
BEGIN
    PERFORM FROM catalog.own_keys WHERE org_id = p_org_id AND provider = p_provider FOR NO KEY UPDATE;
    UPDATE catalog.own_keys SET credential = p_new
        WHERE org_id = p_org_id AND provider = p_provider AND credential = p_old;
    UPDATE catalog.changes SET
        before_row = CASE WHEN before_row @> v_old THEN before_row || v_new ELSE before_row END,
        after_row = CASE WHEN after_row @> v_old THEN after_row || v_new ELSE after_row END
    WHERE relation = 'own_keys' AND (before_row @> v_old OR after_row @> v_old);
END $$;
