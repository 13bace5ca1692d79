-- what: a change of a key that is written together with its last use is a change; the mode is looked at in every update
-- why: the triggers passed over any update of last_used_at, so one that revoked as well was neither announced nor checked
-- running version survives it: yes, it never writes the two together
CREATE FUNCTION accounts.keep_mode() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.mode <> OLD.mode THEN
        RAISE EXCEPTION 'the mode of a key never changes';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_mode BEFORE UPDATE ON accounts.api_keys
    FOR EACH ROW EXECUTE FUNCTION accounts.keep_mode();

CREATE OR REPLACE FUNCTION accounts.stamp_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.change_number := accounts.next_key_change();
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;

-- A use, and nothing but a use, is no change. An update that sets everything to what it was is one: that is how an organisation
-- announces its keys.
DROP TRIGGER stamp ON accounts.api_keys;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.api_keys
    FOR EACH ROW WHEN (NEW.last_used_at IS NOT DISTINCT FROM OLD.last_used_at
                       OR to_jsonb(NEW) - 'last_used_at' IS DISTINCT FROM to_jsonb(OLD) - 'last_used_at')
    EXECUTE FUNCTION accounts.stamp_api_key();
