-- what: one number for all changes of keys in a transaction; an organisation is announced as one; nobody reports what was not
-- why: closing an organisation with 50,000 keys took a number for each of them, and held up every other change meanwhile
-- running version survives it: yes, it takes the announcement of an organisation for one it missed and doubts what it remembers
ALTER TABLE accounts.key_changes ADD COLUMN taken_by xid8;

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

-- Here only because the trigger needs one of its name.
CREATE FUNCTION accounts.stamp_keys_of_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.keys_change_number := accounts.next_key_change();
    NEW.keys_changed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.organizations
    FOR EACH ROW WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at)
    EXECUTE FUNCTION accounts.stamp_keys_of_org();

-- What an organisation has and what somebody has made, however many others there are.
CREATE INDEX open_keys_of_org ON accounts.api_keys (org_id, seq) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_by_maker ON accounts.api_keys (created_by) WHERE revoked_at IS NULL;
CREATE INDEX machine_tokens_by_maker ON accounts.machine_tokens (created_by);
CREATE INDEX open_invitations_by_maker ON accounts.invitations (invited_by)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
