-- what: which requests and which failed attempts were sent with their organisation's own key
-- why: for those the provider charges the organisation, so they are none of what it charges us; and a provider
-- that refuses such a key, or is asked too much with it, is as well as ever for everybody else
-- running version survives it: yes, it knows of no such requests

ALTER TABLE billing.requests ADD COLUMN own_key boolean NOT NULL DEFAULT false;
ALTER TABLE billing.attempts ADD COLUMN own_key boolean NOT NULL DEFAULT false;
