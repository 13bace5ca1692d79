-- what: how much of a dispute is in the ledger, in the place of whether it is
-- why: a refund and a dispute of the same payment together took back more than had been paid
-- running version survives it: no, disputes and refunds are 503 to it until it is replaced; Stripe sends them again
ALTER TABLE payments.disputes ADD COLUMN posted_cents bigint NOT NULL DEFAULT 0;
UPDATE payments.disputes SET posted_cents = amount_cents WHERE is_posted;
ALTER TABLE payments.disputes
    DROP COLUMN is_posted,
    ADD CHECK (posted_cents BETWEEN 0 AND amount_cents);
