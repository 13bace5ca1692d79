-- what: whose request a failed attempt was part of, where the line about it says so, and whether its answer was the gateway's own
-- why: what one organisation's requests bring about says little of a provider to all others, and what we have answered ourselves says nothing
-- running version survives it: yes, it writes neither

ALTER TABLE billing.attempts ADD COLUMN org_id text, ADD COLUMN own_reply boolean NOT NULL DEFAULT false;
