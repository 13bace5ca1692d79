-- what: accounts for money that comes from outside and for what is owed to us; who moved it, why, and what it refers to
-- why: manual credits, payments, refunds and disputes
-- running version survives it: yes, billing.credit is called as before, and nothing it knows has changed

-- As before, amounts are what we owe: a balance is above zero, what others owe us is below.
--   funding          counter-account of what operators and vouchers give
--   stripe_clearing  counter-account of what was paid, refunded and disputed at Stripe: what Stripe owes us, or has paid out
--   receivable       what an organisation owes us: what was taken back of a payment that had been spent
ALTER TABLE billing.accounts
    DROP CONSTRAINT accounts_kind_check,
    DROP CONSTRAINT accounts_check,
    ADD CONSTRAINT accounts_kind_check CHECK (
        kind IN ('balance', 'receivable', 'revenue', 'funding', 'stripe_clearing', 'platform_absorbed')),
    ADD CONSTRAINT accounts_of_orgs CHECK ((kind IN ('balance', 'receivable')) = (org_id IS NOT NULL)),
    ADD CONSTRAINT receivable_is_owed_to_us CHECK (kind <> 'receivable' OR (posted_nano_usd <= 0 AND mode = 'live'));
INSERT INTO billing.accounts (kind, mode) VALUES ('stripe_clearing', 'live');

ALTER TABLE billing.transactions
    DROP CONSTRAINT transactions_kind_check,
    ADD CONSTRAINT transactions_kind_check CHECK (
        kind IN ('usage', 'credit', 'voucher', 'topup', 'refund', 'dispute', 'dispute_won')),
    -- What it follows from, by its name elsewhere: a payment, a dispute, a voucher.
    ADD COLUMN reference text,
    ADD COLUMN actor_kind text,
    ADD COLUMN actor_id text;

-- A page of an account's history begins anywhere in it.
CREATE INDEX entries_of_account_in_order ON billing.entries (account_id, transaction_id);
DROP INDEX billing.entries_of_account;

-- Moves money between an organisation and one of the platform's accounts. Returns the transaction.
--
-- Above zero: pays first what the organisation owes, and adds the rest to its balance. Below zero: takes what is neither
-- spent nor held from the balance; the rest the organisation owes from now on. So no balance goes below zero, and no
-- request loses what it holds.
CREATE FUNCTION billing.move_money(
    p_org_id text, p_amount_nano_usd bigint, p_other_account text, p_kind text, p_reason text, p_reference text,
    p_actor_kind text, p_actor_id text, p_mode text DEFAULT 'live'
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_transaction bigint;
    v_balance billing.accounts;
    v_receivable billing.accounts;
    v_other bigint;
    v_to_balance bigint;
BEGIN
    IF p_amount_nano_usd = 0 THEN
        RAISE EXCEPTION 'an amount of zero moves nothing';
    END IF;
    -- Before anything is locked: whoever opens the same account at the same time is waited for here.
    IF p_amount_nano_usd < 0 AND p_mode = 'live' THEN
        INSERT INTO billing.accounts (kind, org_id, mode) VALUES ('receivable', p_org_id, p_mode)
        ON CONFLICT (kind, org_id, mode) DO NOTHING;
    END IF;
    -- In the order of account_id, like every writer of more than one balance.
    PERFORM FROM billing.accounts
        WHERE mode = p_mode AND (kind = p_other_account OR (kind IN ('balance', 'receivable') AND org_id = p_org_id))
        ORDER BY account_id FOR UPDATE;
    SELECT account_id INTO STRICT v_other FROM billing.accounts
        WHERE kind = p_other_account AND org_id IS NULL AND mode = p_mode;
    SELECT * INTO v_balance FROM billing.accounts WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'organisation % has no % balance', p_org_id, p_mode;
    END IF;
    SELECT * INTO v_receivable FROM billing.accounts WHERE kind = 'receivable' AND org_id = p_org_id AND mode = p_mode;

    IF p_amount_nano_usd > 0 THEN
        v_to_balance := p_amount_nano_usd - least(p_amount_nano_usd, coalesce(-v_receivable.posted_nano_usd, 0));
    ELSE
        v_to_balance := -least(-p_amount_nano_usd, v_balance.posted_nano_usd - v_balance.held_nano_usd);
    END IF;

    INSERT INTO billing.transactions (kind, reason, reference, actor_kind, actor_id, mode)
    VALUES (p_kind, p_reason, p_reference, p_actor_kind, p_actor_id, p_mode)
    RETURNING transaction_id INTO v_transaction;
    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT v_transaction, account_id, amount, p_mode FROM (VALUES
        (v_balance.account_id, v_to_balance),
        (v_receivable.account_id, p_amount_nano_usd - v_to_balance),
        (v_other, -p_amount_nano_usd)
    ) AS entry (account_id, amount) WHERE amount <> 0;
    RETURN v_transaction;
END $$;

-- What an operator gives, or, below zero, takes back. Returns the transaction; null, and nothing changed, when there is not
-- as much to take back that is neither spent nor held.
DROP FUNCTION billing.credit(text, bigint, text, text);
CREATE FUNCTION billing.credit(
    p_org_id text, p_amount_nano_usd bigint, p_reason text, p_mode text DEFAULT 'live',
    p_actor_kind text DEFAULT NULL, p_actor_id text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount_nano_usd < 0 THEN
        -- As billing.move_money locks them, before it is known whether it is called.
        PERFORM FROM billing.accounts
            WHERE mode = p_mode AND (kind = 'funding' OR (kind IN ('balance', 'receivable') AND org_id = p_org_id))
            ORDER BY account_id FOR UPDATE;
        IF EXISTS (SELECT FROM billing.accounts
                   WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode
                     AND posted_nano_usd - held_nano_usd < -p_amount_nano_usd) THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN billing.move_money(
        p_org_id, p_amount_nano_usd, 'funding', 'credit', p_reason, NULL, p_actor_kind, p_actor_id, p_mode);
END $$;
