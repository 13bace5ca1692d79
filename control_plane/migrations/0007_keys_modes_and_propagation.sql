-- what: keys of two modes; every change of a key has a number; who keeps keys in memory says up to which number; last use
-- why: test keys, and a change of a key that can be seen to have arrived everywhere
-- running version survives it: yes, it takes the longer announcement for one it missed and forgets everything it remembers
ALTER TABLE accounts.api_keys
    ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test')),
    -- Of the latest change, whosever statement it was.
    ADD COLUMN change_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();

-- The number of the latest change that is committed. Its one row is locked by each change until it commits, so changes are
-- committed and announced in the order of their numbers: who has heard of one has heard of all before it.
CREATE TABLE accounts.key_changes (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    number  bigint NOT NULL
);
INSERT INTO accounts.key_changes (number) VALUES (0);

CREATE FUNCTION accounts.next_key_change() RETURNS bigint LANGUAGE sql AS $$
    UPDATE accounts.key_changes SET number = number + 1 RETURNING number;
$$;

CREATE FUNCTION accounts.stamp_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.mode <> OLD.mode THEN
        RAISE EXCEPTION 'the mode of a key never changes';
    END IF;
    NEW.change_number := accounts.next_key_change();
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;

-- A use is no change; everything else is.
CREATE TRIGGER stamp_new BEFORE INSERT ON accounts.api_keys
    FOR EACH ROW EXECUTE FUNCTION accounts.stamp_api_key();
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.api_keys
    FOR EACH ROW WHEN (NEW.last_used_at IS NOT DISTINCT FROM OLD.last_used_at)
    EXECUTE FUNCTION accounts.stamp_api_key();

-- One announcement for a change, with every hash the key has or had: of a new one, its absence may be remembered.
CREATE OR REPLACE FUNCTION accounts.announce_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint := CASE WHEN TG_OP = 'DELETE' THEN accounts.next_key_change() ELSE NEW.change_number END;
BEGIN
    PERFORM pg_notify('api_key_changed', v_number || ':' || string_agg(DISTINCT encode(hash, 'hex'), ','))
    FROM unnest(ARRAY[OLD.key_hash, NEW.key_hash, OLD.previous_key_hash, NEW.previous_key_hash]) AS hash
    WHERE hash IS NOT NULL;
    RETURN NULL;
END $$;
DROP TRIGGER announce ON accounts.api_keys;
CREATE TRIGGER announce AFTER INSERT OR DELETE ON accounts.api_keys
    FOR EACH ROW EXECUTE FUNCTION accounts.announce_api_key();
CREATE TRIGGER announce_change AFTER UPDATE ON accounts.api_keys
    FOR EACH ROW WHEN (NEW.change_number <> OLD.change_number)
    EXECUTE FUNCTION accounts.announce_api_key();

-- Closing or opening an organisation changes each of its keys. Their rows are locked before the first of them takes a
-- number: whoever holds a row and waits for a number is never waited for by one who has the number.
CREATE OR REPLACE FUNCTION accounts.announce_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM accounts.api_keys WHERE org_id = NEW.org_id ORDER BY key_id FOR NO KEY UPDATE;
    UPDATE accounts.api_keys SET changed_at = now() WHERE org_id = NEW.org_id;
    RETURN NULL;
END $$;

DROP FUNCTION accounts.find_key(bytea);
CREATE FUNCTION accounts.find_key(p_key_hash bytea)
RETURNS TABLE (key_id text, org_id text, project_id text, models_allowed text[], is_disabled boolean,
               expires_at timestamptz, ip_allowed text[], mode text)
LANGUAGE sql STABLE AS $$
    SELECT key.key_id, key.org_id, key.project_id, key.models_allowed,
           key.disabled_at IS NOT NULL OR key.revoked_at IS NOT NULL OR org.disabled_at IS NOT NULL,
           -- The predecessor of a rotated key works for a while, and never longer than the key.
           CASE WHEN key.key_hash = p_key_hash THEN key.expires_at
                ELSE least(key.expires_at, key.previous_valid_until) END,
           key.ip_allowed::text[], key.mode
    FROM accounts.api_keys key JOIN accounts.organizations org USING (org_id)
    WHERE key.key_hash = p_key_hash OR key.previous_key_hash = p_key_hash;
$$;

-- Writes down when keys were used. Called by ext_authz with many at once. A key that was written down less than a minute ago
-- by another process, or that somebody is changing right now, waits for its next use.
CREATE FUNCTION accounts.touch_keys(p_key_ids text[], p_used_at timestamptz[]) RETURNS void LANGUAGE sql AS $$
    WITH due AS (
        SELECT k.key_id, u.used_at
        FROM unnest(p_key_ids, p_used_at) AS u (key_id, used_at) JOIN accounts.api_keys k USING (key_id)
        WHERE k.last_used_at IS NULL OR k.last_used_at < u.used_at - interval '50 seconds'
        ORDER BY k.key_id FOR NO KEY UPDATE OF k SKIP LOCKED
    )
    UPDATE accounts.api_keys k SET last_used_at = due.used_at FROM due WHERE k.key_id = due.key_id;
$$;

-- The processes of ext_authz: each keeps keys in memory and is heard from every second.
CREATE TABLE accounts.authorizers (
    instance_id   text PRIMARY KEY,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    heard_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- It has taken up every change up to this one.
    change_number bigint NOT NULL
);

-- When each of them took up what; kept for an hour.
CREATE TABLE accounts.key_uptakes (
    instance_id   text NOT NULL REFERENCES accounts.authorizers ON DELETE CASCADE,
    change_number bigint NOT NULL,
    taken_up_at   timestamptz NOT NULL,
    PRIMARY KEY (instance_id, change_number)
);

-- What a process of ext_authz says of itself: it is there, and it took up everything to this change so long ago. An age and
-- not a time, so that clocks need not agree.
CREATE FUNCTION accounts.report_authorizer(p_instance_id text, p_change_number bigint, p_age interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_before bigint;
BEGIN
    SELECT change_number INTO v_before FROM accounts.authorizers WHERE instance_id = p_instance_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO accounts.authorizers (instance_id, change_number) VALUES (p_instance_id, p_change_number);
    ELSE
        UPDATE accounts.authorizers SET heard_at = clock_timestamp(), change_number = p_change_number
        WHERE instance_id = p_instance_id;
    END IF;
    IF p_change_number > coalesce(v_before, -1) THEN
        INSERT INTO accounts.key_uptakes (instance_id, change_number, taken_up_at)
        VALUES (p_instance_id, p_change_number, clock_timestamp() - p_age);
    END IF;
END $$;

-- A process of ext_authz ends.
CREATE FUNCTION accounts.dismiss_authorizer(p_instance_id text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM accounts.authorizers WHERE instance_id = p_instance_id;
$$;
