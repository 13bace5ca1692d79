-- what: the schema payments: top-ups, and what Stripe has told about them
-- why: money comes in and goes back by what Stripe says, in any order and any number of times
-- running version survives it: yes, it knows nothing of it
CREATE SCHEMA payments;

-- Stripe does things of its own accord: a bank takes a payment back.
ALTER TABLE accounts.audit_log
    DROP CONSTRAINT audit_log_actor_kind_check,
    ADD CONSTRAINT audit_log_actor_kind_check CHECK (actor_kind IN ('user', 'token', 'anonymous', 'stripe'));

-- What an organisation has asked to pay. The amount never changes; Stripe's word is compared with it.
CREATE TABLE payments.topups (
    topup_id       text PRIMARY KEY,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    org_id         text NOT NULL REFERENCES accounts.organizations,
    amount_cents   bigint NOT NULL CHECK (amount_cents > 0),
    session_id     text NOT NULL UNIQUE,
    payment_intent text UNIQUE,
    transaction_id bigint UNIQUE,
    actor_kind     text NOT NULL,
    actor_id       text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    paid_at        timestamptz,
    CHECK (num_nulls(payment_intent, transaction_id, paid_at) IN (0, 3))
);
CREATE INDEX topups_of_org ON payments.topups (org_id, seq);

-- What was taken back of a payment: what Stripe says in all, and how much of that is in the ledger. They differ while the
-- payment itself has not been heard of.
CREATE TABLE payments.refunds (
    payment_intent text PRIMARY KEY,
    told_cents     bigint NOT NULL DEFAULT 0 CHECK (told_cents >= 0),
    posted_cents   bigint NOT NULL DEFAULT 0 CHECK (posted_cents BETWEEN 0 AND told_cents)
);

CREATE TABLE payments.disputes (
    dispute_id     text PRIMARY KEY,
    payment_intent text NOT NULL,
    amount_cents   bigint NOT NULL CHECK (amount_cents > 0),
    status         text NOT NULL CHECK (status IN ('open', 'won', 'lost')),
    -- The money is with the bank, and that is in the ledger.
    is_posted      boolean NOT NULL DEFAULT false
);
CREATE INDEX disputes_of_payment ON payments.disputes (payment_intent);

-- Every event that was signed by Stripe, written in the transaction of what follows from it.
CREATE TABLE payments.stripe_events (
    event_id    text PRIMARY KEY,
    type        text NOT NULL,
    -- Of the type and the object; the rest differs between two deliveries.
    input_hash  bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

-- Events that contradict what we know, whole. Nothing was posted; a person decides.
CREATE TABLE payments.quarantine (
    quarantine_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       text NOT NULL,
    reason         text NOT NULL,
    payload        bytea NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (event_id, reason)
);
