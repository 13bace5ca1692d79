-- what: whether a request was answered with what was kept of an answer before
-- why: how often, and what it saves
-- running version survives it: yes, it writes none
ALTER TABLE requests ADD COLUMN IF NOT EXISTS cached Bool DEFAULT false AFTER meters
