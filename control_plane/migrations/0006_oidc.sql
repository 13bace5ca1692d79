-- what: users without a password, identities at OIDC issuers, and log-ins there that have been begun
-- why: people log in with the account their company or another provider has given them
-- running version survives it: yes, to it a user without a password is one whose password never fits
ALTER TABLE accounts.users ALTER COLUMN password_hash DROP NOT NULL;

CREATE TABLE accounts.identities (
    -- The issuer's URL. Its name in the settings may change, and subjects are unique only per issuer.
    issuer     text NOT NULL CHECK (issuer <> ''),
    subject    text NOT NULL CHECK (subject <> ''),
    user_id    text NOT NULL REFERENCES accounts.users,
    -- What the issuer said when it was linked; the user's own address is in accounts.users.
    email      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_of_user ON accounts.identities (user_id);

-- A log-in between its start and the way back from the issuer. Neither the PKCE verifier nor the nonce is here: both are
-- derived from the secret of whoever began, of which this keeps a hash.
CREATE TABLE accounts.oidc_log_ins (
    state_hash  bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    issuer      text NOT NULL,
    return_to   text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX oidc_log_ins_by_age ON accounts.oidc_log_ins (expires_at);
