-- what: the provider's own name of the model in each request, and sums of requests by provider, hour and that name
-- why: a provider's own account of what was used is compared with ours, and that must not read every request
-- running version survives it: yes, it names no upstream model and adds nothing up; both are made up for

-- NULL where it was not known: in rows from before, and of requests that no provider answered.
ALTER TABLE billing.requests ADD COLUMN upstream_model text;

-- Derived from billing.requests up to the cursor `provider_sums`, live requests only; billing.add_up_for_providers writes it.
CREATE TABLE billing.provider_sums (
    provider       text NOT NULL,
    -- In which the requests began, in UTC.
    hour           timestamptz NOT NULL,
    upstream_model text NOT NULL,
    outcome        text NOT NULL,
    -- `requests`, `failed_attempts`, `cost_nano_usd`, or the name of a meter.
    measure        text NOT NULL,
    amount         bigint NOT NULL,
    PRIMARY KEY (provider, hour, upstream_model, outcome, measure)
);

-- What nobody heard of again may have reached a provider all the same.
CREATE INDEX holds_expired ON billing.holds (placed_at) WHERE state = 'expired';
