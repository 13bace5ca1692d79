-- what: why a request tried the provider first that it did
-- why: what a strategy does to cost and speed is seen by comparing
-- running version survives it: yes, it leaves it out
ALTER TABLE requests ADD COLUMN IF NOT EXISTS choice LowCardinality(String)
