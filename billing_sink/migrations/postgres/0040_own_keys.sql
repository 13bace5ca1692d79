-- what: which requests and which failed attempts were sent with their organisation's own key
-- why: for those the provider charges the organisation, so they are none of what it charges us, nor evidence of how it is for others
-- running version survives it: yes, it knows of no such requests

ALTER TABLE billing.requests ADD COLUMN own_key boolean NOT NULL DEFAULT false;
ALTER TABLE billing.attempts ADD COLUMN own_key boolean NOT NULL DEFAULT false;
