-- what: conditions, units and free versions of prices; what single organisations pay; prices that hold from a later moment
-- why: prices are edited through the API
-- running version survives it: yes, until a price has a condition or an organisation has terms, of which it knows nothing
ALTER TABLE catalog.prices
    ADD COLUMN seq       bigint GENERATED ALWAYS AS IDENTITY,
    -- What the amounts were written per. The columns are per million of what the meter counts, whatever stands here.
    ADD COLUMN unit      text NOT NULL DEFAULT '1M tokens',
    -- When the row holds; {} is always. gateway_core/pricing.py knows which conditions there are.
    ADD COLUMN condition jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(condition) = 'object'),
    DROP CONSTRAINT prices_pkey,
    ADD PRIMARY KEY (model, provider, revision, meter, condition),
    -- A version whose one meter is 'free' makes all of them cost nothing.
    ADD CHECK (meter <> 'free' OR (cost_nano_usd_per_mtok = 0 AND price_nano_usd_per_mtok = 0 AND condition = '{}'));

-- What an organisation pays in the place of list prices. Never updated: new terms are a new row with a newer revision.
CREATE TABLE catalog.terms (
    org_id     text NOT NULL REFERENCES accounts.organizations,
    revision   bigint NOT NULL REFERENCES catalog.revisions,
    -- Added to every list price, in millionths of it.
    markup_ppm integer NOT NULL CHECK (markup_ppm >= -1000000),
    PRIMARY KEY (org_id, revision)
);

-- Prices of their own, in the place of list price and markup. Written together with their terms.
CREATE TABLE catalog.term_prices (
    org_id                  text NOT NULL,
    revision                bigint NOT NULL,
    model                   text NOT NULL,
    -- NULL: at every provider that no other row names.
    provider                text,
    meter                   text NOT NULL CHECK (meter ~ '^[a-z][a-z0-9_]*$'),
    unit                    text NOT NULL,
    price_nano_usd_per_mtok bigint NOT NULL CHECK (price_nano_usd_per_mtok >= 0),
    FOREIGN KEY (org_id, revision) REFERENCES catalog.terms,
    UNIQUE NULLS NOT DISTINCT (org_id, revision, model, provider, meter)
);

CREATE TRIGGER stamp BEFORE INSERT ON catalog.terms FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER stamp BEFORE INSERT ON catalog.term_prices FOR EACH ROW EXECUTE FUNCTION catalog.stamp_row();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.terms
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.term_prices
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();

-- Price versions that are not yet due. control_plane moves each into catalog.prices when it is, and only then is there a
-- revision that a request could be admitted under.
CREATE TABLE catalog.scheduled_prices (
    schedule_id    text PRIMARY KEY,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    model          text NOT NULL,
    provider       text NOT NULL,
    -- An array of objects with the columns meter, unit, condition, cost_nano_usd_per_mtok and price_nano_usd_per_mtok.
    price_rows     jsonb NOT NULL CHECK (jsonb_typeof(price_rows) = 'array' AND price_rows <> '[]'),
    effective_from timestamptz NOT NULL,
    -- In whose name it will be published.
    actor_kind     text NOT NULL,
    actor_id       text NOT NULL,
    request_id     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX scheduled_prices_in_order ON catalog.scheduled_prices (effective_from, seq);
