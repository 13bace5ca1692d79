-- what: the schema payments: top-ups, what Stripe has told about them, vouchers, and what happens when a balance runs low
-- why: money comes in and goes back by what Stripe says, in any order and any number of times
-- running version survives it: yes, it knows nothing of it
CREATE SCHEMA payments;

-- Stripe does things of its own accord (a bank takes a payment back), and so do we (a balance runs low).
ALTER TABLE accounts.audit_log
    DROP CONSTRAINT audit_log_actor_kind_check,
    ADD CONSTRAINT audit_log_actor_kind_check CHECK (actor_kind IN ('user', 'token', 'anonymous', 'stripe', 'system'));

-- What an organisation has asked to pay. The amount never changes; Stripe's word is compared with it.
CREATE TABLE payments.topups (
    topup_id       text PRIMARY KEY,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    org_id         text NOT NULL REFERENCES accounts.organizations,
    amount_cents   bigint NOT NULL CHECK (amount_cents > 0),
    -- Of the page where it is paid; an automatic one has none, and is asked for with the payment method that was saved.
    session_id     text UNIQUE,
    asked_at       timestamptz,
    failed_at      timestamptz,
    failure        text,
    payment_intent text UNIQUE,
    transaction_id bigint UNIQUE,
    actor_kind     text NOT NULL,
    actor_id       text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    paid_at        timestamptz,
    CHECK (num_nulls(payment_intent, transaction_id, paid_at) IN (0, 3)),
    CHECK ((session_id IS NULL) = (asked_at IS NOT NULL)),
    CHECK ((failed_at IS NULL) = (failure IS NULL))
);
CREATE INDEX topups_of_org ON payments.topups (org_id, seq);
-- One automatic top-up at a time.
CREATE UNIQUE INDEX automatic_topups_under_way ON payments.topups (org_id)
    WHERE session_id IS NULL AND paid_at IS NULL AND failed_at IS NULL;

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

-- What an organisation has agreed to be charged with while nobody is there. Names at Stripe, no card data.
CREATE TABLE payments.payment_methods (
    org_id         text PRIMARY KEY REFERENCES accounts.organizations,
    customer       text NOT NULL,
    payment_method text NOT NULL,
    saved_at       timestamptz NOT NULL DEFAULT now()
);

-- What is done when a balance runs low.
CREATE TABLE payments.settings (
    org_id                 text PRIMARY KEY REFERENCES accounts.organizations,
    low_balance_nano_usd   bigint CHECK (low_balance_nano_usd > 0),
    -- Told once, and again only after it has been above.
    is_low_balance_told    boolean NOT NULL DEFAULT false,
    topup_below_nano_usd   bigint CHECK (topup_below_nano_usd > 0),
    topup_cents            bigint CHECK (topup_cents > 0),
    topup_month_cents_max  bigint CHECK (topup_month_cents_max >= topup_cents),
    -- After a failure it is left alone until then.
    topup_paused_until     timestamptz,
    revision               bigint NOT NULL DEFAULT 1,
    CHECK (num_nulls(topup_below_nano_usd, topup_cents, topup_month_cents_max) IN (0, 3))
);

-- Codes that give credit. Of a code only the keyed hash is kept.
CREATE TABLE payments.vouchers (
    voucher_id      text PRIMARY KEY,
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    code_hash       bytea NOT NULL UNIQUE,
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd > 0),
    uses_max        integer NOT NULL CHECK (uses_max > 0),
    uses            integer NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND uses_max),
    expires_at      timestamptz,
    reason          text NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    withdrawn_at    timestamptz
);
CREATE INDEX vouchers_in_order ON payments.vouchers (seq);
CREATE TABLE payments.redemptions (
    voucher_id     text NOT NULL REFERENCES payments.vouchers,
    org_id         text NOT NULL REFERENCES accounts.organizations,
    transaction_id bigint NOT NULL UNIQUE,
    redeemed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (voucher_id, org_id)
);
