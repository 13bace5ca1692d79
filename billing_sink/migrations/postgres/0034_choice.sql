-- what: why a request tried the provider first that it did
-- why: whoever looks at a request asks that next
-- running version survives it: yes, it leaves it out

ALTER TABLE billing.requests ADD COLUMN choice text;
