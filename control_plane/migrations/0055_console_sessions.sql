-- what: who is signed in to the console, by the hash of what their browser holds
-- why: pages cannot carry access tokens; a cookie is looked up for each of them, and ends with what it was opened with
-- running version survives it: yes, it knows nothing of the table
CREATE TABLE accounts.console_sessions (
    cookie_hash bytea PRIMARY KEY CHECK (octet_length(cookie_hash) = 32),
    -- One of the two: a user's session, or the machine token that somebody signed in with.
    session_id  text REFERENCES accounts.sessions,
    token_hash  bytea CHECK (octet_length(token_hash) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    CHECK ((session_id IS NULL) <> (token_hash IS NULL))
);
CREATE INDEX console_sessions_by_age ON accounts.console_sessions (expires_at);
