-- what: what each key and project has paid, by quarters and days; when, is an argument of billing.settle and decide_quarantine
-- why: budgets by the day and by the month, in whichever time zone, without summing up requests
-- running version survives it: yes, its requests are counted by the trigger, whoever writes them

-- Sums of billing.requests: what was paid, and not what was absorbed, by the time it was recorded. Both spans are of UTC. Days of
-- every time zone begin with one of these quarters; days are here so that a month is the sum of few rows.
CREATE TABLE billing.spending (
    -- The balance that has paid: of an organisation, in a mode.
    account_id      bigint NOT NULL REFERENCES billing.accounts,
    spender_kind    text NOT NULL CHECK (spender_kind IN ('key', 'project')),
    spender_id      text NOT NULL,
    span            text NOT NULL CHECK (span IN ('quarter', 'day')),
    begins_at       timestamptz NOT NULL,
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd > 0),
    PRIMARY KEY (account_id, spender_kind, spender_id, span, begins_at)
);

-- Here only because the trigger needs one of its name.
CREATE FUNCTION billing.post_spending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
-- Waits for whoever is posting, and keeps everybody else from it until what was posted before has been summed up.
CREATE TRIGGER spent AFTER INSERT ON billing.requests
    REFERENCING NEW TABLE AS new_requests FOR EACH STATEMENT EXECUTE FUNCTION billing.post_spending();

INSERT INTO billing.spending (account_id, spender_kind, spender_id, span, begins_at, amount_nano_usd)
SELECT a.account_id, spender.kind, spender.id, span.name, span.begins_at, sum(r.price_nano_usd - r.absorbed_nano_usd)
FROM billing.requests r
JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = r.org_id AND a.mode = r.mode
CROSS JOIN LATERAL (VALUES ('key', r.key_id), ('project', r.project_id)) AS spender (kind, id)
CROSS JOIN LATERAL (VALUES
    ('quarter', date_bin('15 minutes', r.recorded_at, 'epoch')), ('day', date_trunc('day', r.recorded_at, 'UTC'))
) AS span (name, begins_at)
WHERE r.price_nano_usd > r.absorbed_nano_usd AND spender.id IS NOT NULL
GROUP BY a.account_id, spender.kind, spender.id, span.name, span.begins_at;

DROP FUNCTION billing.settle(jsonb);
DROP FUNCTION IF EXISTS billing.decide_quarantine(bigint, text, bigint, text, text, text);
