-- what: more kinds of providers, and the region of those whose requests are signed
-- why: a kind is a row of facts in the code, and which there are is not the schema's to say
-- running version survives it: yes, as long as no provider is of a new kind

ALTER TABLE catalog.providers
    DROP CONSTRAINT providers_kind_check,
    ADD CONSTRAINT providers_kind_check CHECK (kind ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    ADD COLUMN region text CHECK (region ~ '^[a-z]{2}[a-z0-9-]{1,38}$');
