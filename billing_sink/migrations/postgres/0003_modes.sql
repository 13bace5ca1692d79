-- what: a second set of books, for test keys: accounts, transactions, entries and requests have a mode
-- why: what is bought with a test key is play money, and nothing of it may ever be taken for revenue
-- running version survives it: yes, its calls mean what they meant before, mode live

ALTER TABLE billing.accounts
    ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test')),
    DROP CONSTRAINT accounts_kind_org_id_key,
    ADD UNIQUE NULLS NOT DISTINCT (kind, org_id, mode),
    ADD UNIQUE (account_id, mode);
ALTER TABLE billing.transactions
    ADD COLUMN mode text NOT NULL DEFAULT 'live',
    ADD UNIQUE (transaction_id, mode);
-- An entry is of the mode of its transaction and of the mode of its account: so no transaction mixes them.
ALTER TABLE billing.entries
    ADD COLUMN mode text NOT NULL DEFAULT 'live',
    DROP CONSTRAINT entries_transaction_id_fkey,
    DROP CONSTRAINT entries_account_id_fkey,
    ADD FOREIGN KEY (transaction_id, mode) REFERENCES billing.transactions (transaction_id, mode),
    ADD FOREIGN KEY (account_id, mode) REFERENCES billing.accounts (account_id, mode);
ALTER TABLE billing.requests
    ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
-- From here on, whoever writes says which.
ALTER TABLE billing.accounts ALTER COLUMN mode DROP DEFAULT;
ALTER TABLE billing.transactions ALTER COLUMN mode DROP DEFAULT;
ALTER TABLE billing.entries ALTER COLUMN mode DROP DEFAULT;
ALTER TABLE billing.requests ALTER COLUMN mode DROP DEFAULT;

INSERT INTO billing.accounts (kind, mode) VALUES ('revenue', 'test'), ('funding', 'test'), ('platform_absorbed', 'test');

-- Adds money to a balance. Returns the transaction.
DROP FUNCTION billing.credit(text, bigint, text);
CREATE FUNCTION billing.credit(p_org_id text, p_amount_nano_usd bigint, p_reason text, p_mode text DEFAULT 'live')
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_transaction bigint;
BEGIN
    IF p_amount_nano_usd <= 0 THEN
        RAISE EXCEPTION 'a credit is more than zero';
    END IF;
    -- In the order of account_id, like every writer of more than one balance.
    PERFORM FROM billing.accounts
        WHERE mode = p_mode AND (kind = 'funding' OR (kind = 'balance' AND org_id = p_org_id))
        ORDER BY account_id FOR UPDATE;
    IF NOT EXISTS (SELECT FROM billing.accounts WHERE mode = p_mode AND kind = 'balance' AND org_id = p_org_id) THEN
        RAISE EXCEPTION 'organisation % has no % balance', p_org_id, p_mode;
    END IF;
    INSERT INTO billing.transactions (kind, reason, mode) VALUES ('credit', p_reason, p_mode)
    RETURNING transaction_id INTO v_transaction;
    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT v_transaction, account_id, CASE kind WHEN 'balance' THEN p_amount_nano_usd ELSE -p_amount_nano_usd END, mode
    FROM billing.accounts WHERE mode = p_mode AND (kind = 'funding' OR (kind = 'balance' AND org_id = p_org_id));
    RETURN v_transaction;
END $$;

-- Fills a test balance up to 1,000 US dollars of play money. Returns what was missing.
CREATE FUNCTION billing.refill_test_balance(p_org_id text) RETURNS bigint LANGUAGE plpgsql AS $$
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

INSERT INTO billing.accounts (kind, org_id, mode)
SELECT 'balance', org_id, 'test' FROM billing.accounts WHERE kind = 'balance' ORDER BY account_id;
SELECT billing.refill_test_balance(org_id) FROM billing.accounts
WHERE kind = 'balance' AND mode = 'test' ORDER BY account_id;

-- Sets money aside for a request. True if the balance covers it; false, and nothing changed, if not.
DROP FUNCTION billing.place_hold(text, text, text, bigint, timestamptz);
CREATE FUNCTION billing.place_hold(
    p_request_id text, p_org_id text, p_key_id text, p_amount_nano_usd bigint, p_expires_at timestamptz,
    p_mode text DEFAULT 'live'
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
BEGIN
    UPDATE billing.accounts SET held_nano_usd = held_nano_usd + p_amount_nano_usd
    WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode AND posted_nano_usd > 0
      AND posted_nano_usd - held_nano_usd >= p_amount_nano_usd
    RETURNING account_id INTO v_account;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO billing.holds (request_id, account_id, key_id, amount_nano_usd, expires_at)
    VALUES (p_request_id, v_account, p_key_id, p_amount_nano_usd, p_expires_at);
    RETURN true;
END $$;

-- As before, with a mode in each request: what it pays comes from the balance of that mode and goes to accounts of that
-- mode. A request whose hold is in the other books is refused whole, for the caller to quarantine. One without a mode is live:
-- the version before this one writes none.
CREATE OR REPLACE FUNCTION billing.settle(p_requests jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    -- Not the name it had in 0002: a session that called the function of then still has the table of then.
    CREATE TEMPORARY TABLE IF NOT EXISTS settling_by_mode (
        position          bigint,
        request_id        text PRIMARY KEY,
        request           jsonb,
        mode              text,
        outcome           text,
        price_nano_usd    bigint,
        account_id        bigint,
        held_nano_usd     bigint,
        late              boolean NOT NULL DEFAULT false,
        absorbed_nano_usd bigint NOT NULL DEFAULT 0,
        transaction_id    bigint
    ) ON COMMIT DELETE ROWS;
    DELETE FROM settling_by_mode;

    INSERT INTO settling_by_mode (position, request_id, request, mode, outcome, price_nano_usd)
    SELECT position, value ->> 'request_id', value, coalesce(value ->> 'mode', 'live'), value ->> 'outcome',
        (value ->> 'price_nano_usd')::bigint
    FROM jsonb_array_elements(p_requests) WITH ORDINALITY AS input (value, position);

    -- Two sinks may be given the same request; the second waits here and then sees it recorded.
    PERFORM pg_advisory_xact_lock(hashtext('billing.settle'));

    RETURN QUERY
        SELECT s.request_id FROM settling_by_mode s JOIN billing.requests r USING (request_id)
        WHERE r.input_hash <> decode(s.request ->> 'input_hash', 'hex');
    DELETE FROM settling_by_mode s USING billing.requests r WHERE r.request_id = s.request_id;

    IF EXISTS (
        SELECT FROM settling_by_mode s
        JOIN billing.holds h USING (request_id) JOIN billing.accounts a ON a.account_id = h.account_id
        WHERE a.mode <> s.mode
    ) THEN
        RAISE integrity_constraint_violation USING MESSAGE = 'a request and its hold are of different modes';
    END IF;

    -- Balances first and in one order, like every other writer, so that nobody waits in a circle. Only in the books that
    -- are written: who pays with real money does not wait for play money.
    UPDATE settling_by_mode s SET account_id = a.account_id
    FROM billing.accounts a WHERE a.kind = 'balance' AND a.org_id = s.request ->> 'org_id' AND a.mode = s.mode;
    PERFORM FROM billing.accounts
        WHERE account_id IN (SELECT account_id FROM settling_by_mode)
           OR (org_id IS NULL AND mode IN (SELECT mode FROM settling_by_mode))
        ORDER BY account_id FOR UPDATE;

    UPDATE billing.holds h
        SET state = CASE s.outcome WHEN 'refused' THEN 'released' WHEN 'free' THEN 'released' ELSE s.outcome END,
            finished_at = now()
        FROM settling_by_mode s WHERE h.request_id = s.request_id AND h.state = 'held';
    -- A hold that had expired before its line came gave its money back: the line is late and pays from what is free.
    UPDATE settling_by_mode s SET
        account_id = h.account_id,
        held_nano_usd = CASE WHEN h.state = 'expired' THEN 0 ELSE h.amount_nano_usd END,
        late = h.state = 'expired'
        FROM billing.holds h WHERE h.request_id = s.request_id;

    WITH need AS (
        SELECT position, account_id,
               greatest(price_nano_usd - coalesce(held_nano_usd, 0), 0) AS beyond_hold,
               greatest(coalesce(held_nano_usd, 0) - price_nano_usd, 0) AS left_of_hold
        FROM settling_by_mode
    ), running AS (
        SELECT n.position, n.beyond_hold,
               sum(n.beyond_hold) OVER (PARTITION BY n.account_id ORDER BY n.position) - n.beyond_hold AS taken_before,
               coalesce(a.posted_nano_usd - a.held_nano_usd, 0)
                   + sum(n.left_of_hold) OVER (PARTITION BY n.account_id) AS free
        FROM need n LEFT JOIN billing.accounts a USING (account_id)
    )
    UPDATE settling_by_mode s
    SET absorbed_nano_usd = r.beyond_hold - greatest(least(r.beyond_hold, r.free - r.taken_before), 0)
    FROM running r WHERE r.position = s.position AND r.beyond_hold > 0;

    INSERT INTO billing.requests (
        request_id, input_hash, mode, outcome, late, usage_source, org_id, project_id, key_id, endpoint, model, provider,
        price_version, stream, status, error_code, response_flags, response_details, attempts, client_request_id,
        user_agent, started_at, duration_ms, first_byte_ms, bytes_received, bytes_sent, sse_events, meters,
        cost_nano_usd, price_nano_usd, absorbed_nano_usd, usage_raw)
    SELECT s.request_id, decode(r.input_hash, 'hex'), s.mode, s.outcome, s.late, r.usage_source, r.org_id, r.project_id,
        r.key_id, r.endpoint, r.model, r.provider, r.price_version, r.stream, r.status, r.error_code, r.response_flags,
        r.response_details, r.attempts, r.client_request_id, r.user_agent, r.started_at, r.duration_ms,
        r.first_byte_ms, r.bytes_received, r.bytes_sent, r.sse_events, r.meters, r.cost_nano_usd, s.price_nano_usd,
        s.absorbed_nano_usd, r.usage_raw
    FROM settling_by_mode s, jsonb_to_record(s.request) AS r (
        input_hash text, usage_source text, org_id text, project_id text, key_id text, endpoint text, model text,
        provider text, price_version bigint, stream boolean, status integer, error_code text, response_flags text,
        response_details text, attempts integer, client_request_id text, user_agent text, started_at timestamptz,
        duration_ms bigint, first_byte_ms bigint, bytes_received bigint, bytes_sent bigint, sse_events integer,
        meters jsonb, cost_nano_usd bigint, usage_raw jsonb)
    ORDER BY s.position;

    UPDATE billing.accounts a SET held_nano_usd = a.held_nano_usd - h.amount
    FROM (SELECT account_id, sum(held_nano_usd)::bigint AS amount FROM settling_by_mode GROUP BY account_id) h
    WHERE a.account_id = h.account_id AND h.amount > 0;

    WITH posted AS (
        INSERT INTO billing.transactions (kind, request_id, mode)
        SELECT 'usage', request_id, mode FROM settling_by_mode WHERE price_nano_usd > 0 ORDER BY position
        RETURNING transaction_id, request_id
    )
    UPDATE settling_by_mode s SET transaction_id = p.transaction_id FROM posted p WHERE p.request_id = s.request_id;

    INSERT INTO billing.entries (transaction_id, account_id, amount_nano_usd, mode)
    SELECT transaction_id, account_id, amount, mode FROM (
        SELECT transaction_id, account_id, absorbed_nano_usd - price_nano_usd AS amount, mode FROM settling_by_mode
        UNION ALL
        SELECT s.transaction_id, a.account_id, -s.absorbed_nano_usd, s.mode
            FROM settling_by_mode s JOIN billing.accounts a ON a.kind = 'platform_absorbed' AND a.mode = s.mode
        UNION ALL
        SELECT s.transaction_id, a.account_id, s.price_nano_usd, s.mode
            FROM settling_by_mode s JOIN billing.accounts a ON a.kind = 'revenue' AND a.mode = s.mode
    ) entry
    WHERE transaction_id IS NOT NULL AND amount <> 0;
END $$;
