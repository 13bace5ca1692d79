-- what: which of the two ledgers a request belongs to, live or test
-- why: play money must not show up in a sum of real money
-- running version survives it: yes, rows it writes are live, as all of its requests are
ALTER TABLE requests ADD COLUMN IF NOT EXISTS mode LowCardinality(String) DEFAULT 'live' AFTER user_agent
