-- what: the tags that a request came with, and how long the gateway itself took for it, in microseconds
-- why: whoever pays wants costs told apart by team or customer; whoever runs this, what it adds
-- running version survives it: yes, it leaves both out

ALTER TABLE billing.requests ADD COLUMN tags jsonb, ADD COLUMN overhead_us bigint;
