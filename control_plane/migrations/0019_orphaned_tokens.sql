-- what: machine tokens whose maker has been revoked or is no member any more end; none outlives the token it was made with
-- why: from now on they end with their maker, and those from before would stay
-- running version survives it: yes
WITH RECURSIVE orphans AS (
    SELECT t.token_id FROM accounts.machine_tokens t JOIN accounts.machine_tokens maker ON maker.token_id = t.created_by
    WHERE maker.disabled_at IS NOT NULL
    UNION
    SELECT t.token_id FROM accounts.machine_tokens t JOIN accounts.users maker ON maker.user_id = t.created_by
    WHERE t.org_id IS NOT NULL AND NOT maker.is_operator AND NOT EXISTS (
        SELECT FROM accounts.memberships m WHERE m.org_id = t.org_id AND m.user_id = maker.user_id)
    UNION
    SELECT t.token_id FROM accounts.machine_tokens t JOIN orphans ON orphans.token_id = t.created_by
)
UPDATE accounts.machine_tokens SET disabled_at = now()
WHERE disabled_at IS NULL AND token_id IN (SELECT token_id FROM orphans);

WITH RECURSIVE made AS (
    SELECT token_id, expires_at AS ends_at FROM accounts.machine_tokens
    UNION
    SELECT t.token_id, made.ends_at FROM accounts.machine_tokens t JOIN made ON made.token_id = t.created_by
), earliest AS (
    SELECT token_id, min(ends_at) AS ends_at FROM made GROUP BY token_id
)
UPDATE accounts.machine_tokens t SET expires_at = earliest.ends_at
FROM earliest WHERE earliest.token_id = t.token_id AND t.expires_at IS DISTINCT FROM earliest.ends_at;
