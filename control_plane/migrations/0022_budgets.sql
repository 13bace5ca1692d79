-- what: budgets of projects, announced as changes of keys, as time zones are; accounts.find_key says which budgets a key is under
-- why: admission keeps budgets, by the calendar of the organisation
-- running version survives it: yes, it takes a project's announcement for one it missed and doubts what it remembers, and reads the
--     columns that it knows by name
ALTER TABLE accounts.projects
    ADD COLUMN budget_per_day_nano_usd bigint CHECK (budget_per_day_nano_usd >= 0),
    ADD COLUMN budget_per_month_nano_usd bigint CHECK (budget_per_month_nano_usd >= 0),
    -- Of the latest change of all its keys at once.
    ADD COLUMN keys_change_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN keys_changed_at timestamptz NOT NULL DEFAULT now();

ALTER FUNCTION accounts.stamp_keys_of_org() RENAME TO stamp_keys;
DROP TRIGGER stamp ON accounts.organizations;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.organizations
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.time_zone) IS DISTINCT FROM (NEW.disabled_at, NEW.time_zone))
    EXECUTE FUNCTION accounts.stamp_keys();
DROP TRIGGER announce ON accounts.organizations;
CREATE TRIGGER announce AFTER UPDATE ON accounts.organizations
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.time_zone) IS DISTINCT FROM (NEW.disabled_at, NEW.time_zone))
    EXECUTE FUNCTION accounts.announce_keys_of_org();

-- Here only because the trigger needs one of its name.
CREATE FUNCTION accounts.announce_keys_of_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.projects
    FOR EACH ROW WHEN ((OLD.budget_per_day_nano_usd, OLD.budget_per_month_nano_usd)
                       IS DISTINCT FROM (NEW.budget_per_day_nano_usd, NEW.budget_per_month_nano_usd))
    EXECUTE FUNCTION accounts.stamp_keys();
CREATE TRIGGER announce AFTER UPDATE ON accounts.projects
    FOR EACH ROW WHEN ((OLD.budget_per_day_nano_usd, OLD.budget_per_month_nano_usd)
                       IS DISTINCT FROM (NEW.budget_per_day_nano_usd, NEW.budget_per_month_nano_usd))
    EXECUTE FUNCTION accounts.announce_keys_of_project();

DROP FUNCTION IF EXISTS accounts.find_key(bytea);
