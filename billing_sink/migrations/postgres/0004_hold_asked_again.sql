-- what: billing.place_hold answers a question it has answered before as it did then
-- why: when an ext_authz dies before it has answered, Envoy asks another one about the same request
-- running version survives it: yes, the function is called as before; what was an error is true now

-- Sets money aside for a request. True if the balance covers it; false, and nothing changed, if not. Asked again about a
-- request whose hold is open: true, and that hold stays the only one.
--
-- Two questions about one request may be here at once: a connection whose client is gone still finishes its statement. The
-- second then waits for the first at the account, and finds its hold.
CREATE OR REPLACE FUNCTION billing.place_hold(
    p_request_id text, p_org_id text, p_key_id text, p_amount_nano_usd bigint, p_expires_at timestamptz,
    p_mode text DEFAULT 'live'
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_open billing.holds;
BEGIN
    UPDATE billing.accounts SET held_nano_usd = held_nano_usd + p_amount_nano_usd
    WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode AND posted_nano_usd > 0
      AND posted_nano_usd - held_nano_usd >= p_amount_nano_usd
    RETURNING account_id INTO v_account;
    IF FOUND THEN
        INSERT INTO billing.holds (request_id, account_id, key_id, amount_nano_usd, expires_at)
        VALUES (p_request_id, v_account, p_key_id, p_amount_nano_usd, p_expires_at)
        ON CONFLICT (request_id) DO NOTHING;
        IF FOUND THEN
            RETURN true;
        END IF;
        UPDATE billing.accounts SET held_nano_usd = held_nano_usd - p_amount_nano_usd WHERE account_id = v_account;
    END IF;
    -- Also when the balance does not cover it: what it lacks may be what the first question has set aside.
    SELECT * INTO v_open FROM billing.holds WHERE request_id = p_request_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_open.state <> 'held' OR v_open.key_id <> p_key_id OR v_open.amount_nano_usd < p_amount_nano_usd
        OR NOT EXISTS (SELECT FROM billing.accounts
                       WHERE account_id = v_open.account_id AND org_id = p_org_id AND mode = p_mode) THEN
        -- Another question under the same id, or the request has ended: whoever asks must not let it pass.
        RAISE unique_violation USING MESSAGE = 'request ' || p_request_id || ' has another hold';
    END IF;
    RETURN true;
END $$;
