-- what: how much of our account at a provider may be used in a minute, in requests and in tokens
-- why: ext_authz counts attempts at a provider against it, and the next provider is asked where it is used up
-- running version survives it: yes, it reads and writes the columns that it knows by name, and keeps no such limits meanwhile
ALTER TABLE catalog.providers
    ADD COLUMN requests_per_minute_max integer CHECK (requests_per_minute_max > 0),
    ADD COLUMN tokens_per_minute_max integer CHECK (tokens_per_minute_max > 0);
