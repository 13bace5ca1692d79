-- what: the name by which a request asked for its model, where that is an alias
-- why: whoever looks at a request looks for the name they wrote
-- running version survives it: yes, it leaves the name out

ALTER TABLE billing.requests ADD COLUMN asked_model text;
