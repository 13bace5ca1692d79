-- what: limits of projects and organisations, announced as changes of their keys, and of models; accounts.find_key says which a key is under
-- why: admission keeps them as it keeps those of keys
-- running version survives it: yes, it reads the columns that it knows by name, and keeps no limits but those of keys meanwhile
ALTER TABLE accounts.projects
    ADD COLUMN requests_per_minute_max integer CHECK (requests_per_minute_max > 0),
    ADD COLUMN tokens_per_minute_max integer CHECK (tokens_per_minute_max > 0),
    ADD COLUMN concurrency_max integer CHECK (concurrency_max > 0);
ALTER TABLE accounts.organizations
    ADD COLUMN requests_per_minute_max integer CHECK (requests_per_minute_max > 0),
    ADD COLUMN tokens_per_minute_max integer CHECK (tokens_per_minute_max > 0),
    ADD COLUMN concurrency_max integer CHECK (concurrency_max > 0);
ALTER TABLE catalog.models
    ADD COLUMN requests_per_minute_max integer CHECK (requests_per_minute_max > 0),
    ADD COLUMN tokens_per_minute_max integer CHECK (tokens_per_minute_max > 0),
    ADD COLUMN concurrency_max integer CHECK (concurrency_max > 0);

DROP TRIGGER stamp ON accounts.organizations;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.organizations
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.time_zone, OLD.requests_per_minute_max, OLD.tokens_per_minute_max, OLD.concurrency_max)
        IS DISTINCT FROM (NEW.disabled_at, NEW.time_zone, NEW.requests_per_minute_max, NEW.tokens_per_minute_max, NEW.concurrency_max))
    EXECUTE FUNCTION accounts.stamp_keys();
DROP TRIGGER announce ON accounts.organizations;
CREATE TRIGGER announce AFTER UPDATE ON accounts.organizations
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.time_zone, OLD.requests_per_minute_max, OLD.tokens_per_minute_max, OLD.concurrency_max)
        IS DISTINCT FROM (NEW.disabled_at, NEW.time_zone, NEW.requests_per_minute_max, NEW.tokens_per_minute_max, NEW.concurrency_max))
    EXECUTE FUNCTION accounts.announce_keys_of_org();
DROP TRIGGER stamp ON accounts.projects;
CREATE TRIGGER stamp BEFORE UPDATE ON accounts.projects
    FOR EACH ROW WHEN ((OLD.budget_per_day_nano_usd, OLD.budget_per_month_nano_usd, OLD.requests_per_minute_max,
                        OLD.tokens_per_minute_max, OLD.concurrency_max)
        IS DISTINCT FROM (NEW.budget_per_day_nano_usd, NEW.budget_per_month_nano_usd, NEW.requests_per_minute_max,
                          NEW.tokens_per_minute_max, NEW.concurrency_max))
    EXECUTE FUNCTION accounts.stamp_keys();
DROP TRIGGER announce ON accounts.projects;
CREATE TRIGGER announce AFTER UPDATE ON accounts.projects
    FOR EACH ROW WHEN ((OLD.budget_per_day_nano_usd, OLD.budget_per_month_nano_usd, OLD.requests_per_minute_max,
                        OLD.tokens_per_minute_max, OLD.concurrency_max)
        IS DISTINCT FROM (NEW.budget_per_day_nano_usd, NEW.budget_per_month_nano_usd, NEW.requests_per_minute_max,
                          NEW.tokens_per_minute_max, NEW.concurrency_max))
    EXECUTE FUNCTION accounts.announce_keys_of_project();

DROP FUNCTION IF EXISTS accounts.find_key(bytea);
