-- what: which requests were sent with their organisation's own key
-- why: the provider charges the organisation for them, so they are none of our costs and none of a provider's invoice to us
-- running version survives it: yes, it knows of no such requests
ALTER TABLE requests ADD COLUMN IF NOT EXISTS own_key Bool DEFAULT false
