-- what: the service tier a request was rated at, beside the provider's words
-- why: it decides about the price, and a charge must be derivable from its row
-- running version survives it: yes, what it writes was rated at the standard tier

-- The last element of usage_raw, where the tier is another one than the standard; computed when it is read.
ALTER TABLE billing.requests ADD COLUMN service_tier text
    GENERATED ALWAYS AS (coalesce(usage_raw -> -1 ->> 'service_tier', 'standard')) VIRTUAL;
