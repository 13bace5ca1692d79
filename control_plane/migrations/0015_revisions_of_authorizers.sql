-- what: processes of ext_authz say which revision of the catalogue they serve, and a change is applied when they serve it
-- why: an operation was applied while a request could still meet a process that knew only the catalogue before it
-- running version survives it: yes; a process that does not say what it serves is not waited for
ALTER TABLE accounts.authorizers
    -- 0 until it has read the catalogue; NULL: it is of a version that does not say.
    ADD COLUMN catalog_revision bigint;

-- One that was not heard from for longer does not count: it is gone, or cut off from here.
CREATE VIEW accounts.live_authorizers AS
    SELECT * FROM accounts.authorizers WHERE heard_at > now() - interval '5 seconds';

-- It has another parameter and another result now.
DROP FUNCTION accounts.report_authorizer(text, bigint, interval);

ALTER TABLE catalog.operations
    -- How many processes of ext_authz have read it, when it was applied; NULL: applied when nobody asked them.
    ADD COLUMN authorizers integer;
