-- what: usage_source may be 'request': what was asked for is charged, or the request itself
-- why: pictures, speech and moderations are counted before a provider answers, or by nobody
-- running version survives it: yes, it writes the sources it knows

-- The rows there are satisfy the narrower one, so nobody waits until all of them have been looked at.
ALTER TABLE billing.requests
    DROP CONSTRAINT requests_usage_source_check,
    ADD CONSTRAINT requests_usage_source_check
        CHECK (usage_source IN ('provider', 'request', 'estimated', 'none')) NOT VALID;
