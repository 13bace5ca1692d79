-- Opens the two balances of an organisation: an empty one, and a full one of play money. Returns the first.
CREATE OR REPLACE FUNCTION billing.open_balance(p_org_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
BEGIN
    INSERT INTO billing.accounts (kind, org_id, mode) VALUES ('balance', p_org_id, 'live')
    RETURNING account_id INTO v_account;
    INSERT INTO billing.accounts (kind, org_id, mode) VALUES ('balance', p_org_id, 'test');
    PERFORM billing.refill_test_balance(p_org_id);
    RETURN v_account;
END $$;

-- Fills a test balance up to 1,000 US dollars of play money. Returns what was missing.
CREATE OR REPLACE FUNCTION billing.refill_test_balance(p_org_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_missing bigint;
BEGIN
    -- As billing.credit locks them, before it is known how much that will be.
    PERFORM FROM billing.accounts
        WHERE mode = 'test' AND (kind = 'funding' OR (kind = 'balance' AND org_id = p_org_id))
        ORDER BY account_id FOR UPDATE;
    SELECT greatest(1000000000000 - posted_nano_usd, 0) INTO STRICT v_missing
    FROM billing.accounts WHERE mode = 'test' AND kind = 'balance' AND org_id = p_org_id;
    IF v_missing > 0 THEN
        PERFORM billing.credit(p_org_id, v_missing, 'play money', 'test');
    END IF;
    RETURN v_missing;
END $$;

-- What an operator gives, or, below zero, takes back. Returns the transaction; null, and nothing changed, when there is not
-- as much to take back that is neither spent nor held.
CREATE OR REPLACE FUNCTION billing.credit(
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

-- Moves money between an organisation and one of the platform's accounts. Returns the transaction.
--
-- Above zero: pays first what the organisation owes, and adds the rest to its balance. Below zero: takes what is neither
-- spent nor held from the balance; the rest the organisation owes from now on. So no balance goes below zero, and no
-- request loses what it holds.
CREATE OR REPLACE FUNCTION billing.move_money(
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
