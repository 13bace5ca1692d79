-- what: webhooks of organisations, what they are told, and how far the telling has got
-- why: systems of an organisation hear of what happens to its money, at least once and only of what did happen
-- running version survives it: yes, it knows nothing of it and tells nobody
CREATE TABLE payments.webhooks (
    webhook_id          text PRIMARY KEY,
    seq                 bigint GENERATED ALWAYS AS IDENTITY,
    org_id              text NOT NULL REFERENCES accounts.organizations,
    url                 text NOT NULL,
    -- Empty: all, those to come included.
    event_types         text[] NOT NULL,
    is_enabled          boolean NOT NULL,
    -- Why we have disabled it; nothing if its organisation has.
    disabled_because    text CHECK (disabled_because IN ('gone', 'failing')),
    sealed_secret       bytea NOT NULL,
    -- The one before the last rotation, which signs as well until then.
    sealed_secret_before bytea,
    secret_before_until timestamptz,
    -- One attempt at a time: whoever makes it has it until then, and when it has ended this says since when it is idle.
    claimed_until       timestamptz NOT NULL DEFAULT '-infinity',
    delivered_at        timestamptz,
    revision            bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT is_enabled OR disabled_because IS NULL),
    CHECK ((sealed_secret_before IS NULL) = (secret_before_until IS NULL))
);
CREATE INDEX webhooks_of_org ON payments.webhooks (org_id, seq);

-- What has happened, written in the transaction in which it did, if somebody wanted to know.
CREATE TABLE payments.webhook_events (
    event_id   text PRIMARY KEY DEFAULT 'msg_' || replace(gen_random_uuid()::text, '-', ''),
    org_id     text NOT NULL REFERENCES accounts.organizations,
    type       text NOT NULL,
    data       json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_events_by_age ON payments.webhook_events (created_at);

-- One event for one webhook. A webhook that is disabled has none that waits.
CREATE TABLE payments.webhook_deliveries (
    delivery_id      text PRIMARY KEY DEFAULT 'del_' || replace(gen_random_uuid()::text, '-', ''),
    seq              bigint GENERATED ALWAYS AS IDENTITY,
    event_id         text NOT NULL REFERENCES payments.webhook_events ON DELETE CASCADE,
    webhook_id       text NOT NULL REFERENCES payments.webhooks ON DELETE CASCADE,
    state            text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed')),
    -- Counted when it begins, so no two attempts have the same number. Never goes back.
    attempts         integer NOT NULL DEFAULT 0,
    -- Of this round: being replayed begins another one.
    first_attempt_at timestamptz,
    next_attempt_at  timestamptz DEFAULT now(),
    last_status      integer,
    last_fault       text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz,
    UNIQUE (event_id, webhook_id),
    CHECK ((state = 'waiting') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'waiting') = (ended_at IS NULL))
);
CREATE INDEX webhook_deliveries_in_order ON payments.webhook_deliveries (webhook_id, seq);
CREATE INDEX webhook_deliveries_waiting ON payments.webhook_deliveries (webhook_id, next_attempt_at, seq)
    WHERE state = 'waiting';

-- Whether the end of a dispute has been told. It is only once its payment is known, and so whose it is.
ALTER TABLE payments.disputes ADD COLUMN is_end_told boolean NOT NULL DEFAULT false;
UPDATE payments.disputes SET is_end_told = true WHERE status <> 'open';
