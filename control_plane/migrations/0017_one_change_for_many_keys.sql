-- what: one number for all changes of keys in a transaction; an organisation is announced as one; nobody reports what was not
-- why: closing an organisation with 50,000 keys took a number for each of them, and held up every other change meanwhile
-- running version survives it: yes, it takes the announcement of an organisation for one it missed and doubts what it remembers
ALTER TABLE accounts.key_changes ADD COLUMN taken_by xid8;

-- The number of this transaction. It keeps the one row until it commits, so it needs no second one.
CREATE OR REPLACE FUNCTION accounts.next_key_change() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
BEGIN
    UPDATE accounts.key_changes SET number = number + 1, taken_by = pg_current_xact_id()
    WHERE taken_by IS DISTINCT FROM pg_current_xact_id() RETURNING number INTO v_number;
    IF NOT FOUND THEN
        SELECT number INTO STRICT v_number FROM accounts.key_changes;
    END IF;
    RETURN v_number;
END $$;

-- A second change in the same transaction has the same number and may have other hashes. The condition is that of `stamp`.
DROP TRIGGER announce_change ON accounts.api_keys;
CREATE TRIGGER announce_change AFTER UPDATE ON accounts.api_keys
    FOR EACH ROW WHEN (NEW.last_used_at IS NOT DISTINCT FROM OLD.last_used_at
                       OR to_jsonb(NEW) - 'last_used_at' IS DISTINCT FROM to_jsonb(OLD) - 'last_used_at')
    EXECUTE FUNCTION accounts.announce_api_key();

-- Closing or opening an organisation changes all its keys at once, and none of their rows.
ALTER TABLE accounts.organizations
    ADD COLUMN keys_change_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN keys_changed_at timestamptz NOT NULL DEFAULT now();

CREATE FUNCTION accounts.stamp_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.keys_change_number := accounts.next_key_change();
    NEW.keys_changed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.organizations
    FOR EACH ROW WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at)
    EXECUTE FUNCTION accounts.stamp_keys_of_org();

CREATE OR REPLACE FUNCTION accounts.announce_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_key_changed', NEW.keys_change_number || ':' || NEW.org_id);
    RETURN NULL;
END $$;

-- What an organisation has and what somebody has made, however many others there are.
CREATE INDEX open_keys_of_org ON accounts.api_keys (org_id, seq) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_by_maker ON accounts.api_keys (created_by) WHERE revoked_at IS NULL;
CREATE INDEX machine_tokens_by_maker ON accounts.machine_tokens (created_by);
CREATE INDEX open_invitations_by_maker ON accounts.invitations (invited_by)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;

-- It says whether it was believed: nobody has taken up a change that is still to come. Its result is another one, so it is made anew.
DROP FUNCTION accounts.report_authorizer(text, bigint, interval, bigint);
