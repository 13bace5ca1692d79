-- The digest of the transactions behind one, up to and with another, on top of the digest before: of each everything that is kept of it,
-- its entries, and the hash of the line that its request was read from.
CREATE OR REPLACE FUNCTION billing.digest(p_before bytea, p_after bigint, p_last bigint) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT sha256(p_before || coalesce(string_agg(digest, ''::bytea ORDER BY transaction_id), ''::bytea)) FROM (
        SELECT t.transaction_id, sha256(convert_to(jsonb_build_array(
            t.transaction_id, t.kind, t.mode, t.request_id, t.reason, t.reference, t.actor_kind, t.actor_id,
            extract(epoch FROM t.created_at), encode(r.input_hash, 'hex'), r.price_nano_usd, r.absorbed_nano_usd,
            (SELECT jsonb_agg(jsonb_build_array(e.account_id, e.amount_nano_usd) ORDER BY e.account_id)
             FROM billing.entries e WHERE e.transaction_id = t.transaction_id)
        )::text, 'UTF8')) AS digest
        FROM billing.transactions t LEFT JOIN billing.requests r USING (request_id)
        WHERE t.transaction_id > p_after AND t.transaction_id <= p_last
    ) told
$$;

-- The last transaction of all. Every one below it has been posted, or never will be: it waits for whoever is about to, and keeps
-- everybody else from it until its own transaction ends, which should be at once.
CREATE OR REPLACE FUNCTION billing.last_of_all() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE billing.transactions IN SHARE MODE;
    RETURN (SELECT coalesce(max(transaction_id), 0) FROM billing.transactions);
END $$;

-- Seals what is posted and not yet sealed, up to p_last, p_limit transactions at most. False if there is nothing.
CREATE OR REPLACE FUNCTION billing.seal(p_last bigint, p_limit integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_before billing.seals;
    v_after  bigint;
    v_last   bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('billing.seals', 0));
    SELECT * INTO v_before FROM billing.seals ORDER BY seal_id DESC LIMIT 1;
    v_after := coalesce(v_before.last_transaction_id, 0);
    SELECT max(transaction_id) INTO v_last FROM (
        SELECT transaction_id FROM billing.transactions WHERE transaction_id > v_after AND transaction_id <= p_last
        ORDER BY transaction_id LIMIT p_limit
    ) next;
    IF v_last IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO billing.seals (seal_id, last_transaction_id, digest)
    VALUES (coalesce(v_before.seal_id, 0) + 1, v_last, billing.digest(coalesce(v_before.digest, ''), v_after, v_last));
    RETURN true;
END $$;

-- Seals that are not what they were made from: something before them has been changed.
CREATE OR REPLACE FUNCTION billing.broken_seals() RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT seal_id FROM (
        SELECT seal_id, digest, last_transaction_id,
               lag(digest, 1, ''::bytea) OVER one_after_the_other AS digest_before,
               lag(last_transaction_id, 1, 0::bigint) OVER one_after_the_other AS after,
               seal_id - lag(seal_id, 1, 0::bigint) OVER one_after_the_other AS step
        FROM billing.seals WINDOW one_after_the_other AS (ORDER BY seal_id)
    ) s WHERE step <> 1 OR digest <> billing.digest(digest_before, after, last_transaction_id)
$$;
