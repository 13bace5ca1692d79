-- what: a hold says of which project it is; billing.place_hold is told (functions/holds.sql)
-- why: the budget of a project counts what is held for its requests
-- running version survives it: yes, it names no project; what it holds counts in no budget until it is charged
ALTER TABLE billing.holds ADD COLUMN project_id text;
-- What is held of a balance for a project, or for one of its keys.
CREATE INDEX holds_open_of_project ON billing.holds (account_id, project_id, key_id) WHERE state = 'held';

DROP FUNCTION IF EXISTS billing.place_hold(text, text, text, bigint, timestamptz, text, bigint);
