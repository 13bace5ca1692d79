-- what: users, memberships, invitations, sessions, signing keys, audit log, remembered answers; revisions of what was there
-- why: tenants sign up and manage themselves through the API
-- running version survives it: yes, columns are added with defaults and nothing it reads is renamed
CREATE TABLE accounts.users (
    user_id           text PRIMARY KEY,
    seq               bigint GENERATED ALWAYS AS IDENTITY,
    email             text NOT NULL CHECK (email <> ''),
    name              text NOT NULL DEFAULT '',
    -- argon2id, with its parameters in front.
    password_hash     text NOT NULL,
    is_operator       boolean NOT NULL DEFAULT false,
    email_verified_at timestamptz,
    disabled_at       timestamptz,
    revision          bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now()
);
-- One account per mailbox, however it is spelt.
CREATE UNIQUE INDEX users_by_email ON accounts.users (lower(email));

ALTER TABLE accounts.organizations
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE accounts.projects
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN archived_at timestamptz,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1;

CREATE TABLE accounts.memberships (
    org_id     text NOT NULL REFERENCES accounts.organizations,
    user_id    text NOT NULL REFERENCES accounts.users,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'billing', 'viewer')),
    revision   bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_of_user ON accounts.memberships (user_id);

CREATE TABLE accounts.invitations (
    invitation_id text PRIMARY KEY,
    seq           bigint GENERATED ALWAYS AS IDENTITY,
    org_id        text NOT NULL REFERENCES accounts.organizations,
    email         text NOT NULL CHECK (email <> ''),
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'billing', 'viewer')),
    token_hash    bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    invited_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    accepted_at   timestamptz,
    revoked_at    timestamptz
);
CREATE INDEX invitations_of_org ON accounts.invitations (org_id);

-- What a link in a mail is good for, once.
CREATE TABLE accounts.mail_tokens (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    text NOT NULL REFERENCES accounts.users,
    purpose    text NOT NULL CHECK (purpose IN ('verify_email', 'reset_password')),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

-- A session is a family of refresh tokens, each good for one use.
CREATE TABLE accounts.sessions (
    session_id text PRIMARY KEY,
    user_id    text NOT NULL REFERENCES accounts.users,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_by text CHECK (revoked_by IN ('logout', 'replay', 'password'))
);
CREATE INDEX sessions_of_user ON accounts.sessions (user_id) WHERE revoked_at IS NULL;

CREATE TABLE accounts.refresh_tokens (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    session_id text NOT NULL REFERENCES accounts.sessions,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz
);

-- The newest one signs; the others are published until the last token they signed has expired.
CREATE TABLE accounts.signing_keys (
    kid            text PRIMARY KEY,
    public_key     bytea NOT NULL CHECK (octet_length(public_key) = 32),
    -- AES-256-GCM under the installation's credential key; see control_plane/accounts/sealing.py.
    sealed_private bytea NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE accounts.machine_tokens
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN org_id text REFERENCES accounts.organizations,
    -- NULL: everything its role may.
    ADD COLUMN scopes text[],
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN created_by text,
    DROP CONSTRAINT machine_tokens_role_check,
    ADD CONSTRAINT machine_tokens_role_check CHECK (role IN ('platform_operator', 'organization')),
    ADD CONSTRAINT machine_tokens_org_check CHECK ((role = 'organization') = (org_id IS NOT NULL)),
    ADD CONSTRAINT machine_tokens_scopes_check CHECK (role = 'platform_operator' OR scopes IS NOT NULL);

-- Every change made through the API, in the transaction that made it.
CREATE TABLE accounts.audit_log (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    org_id     text,
    actor_kind text NOT NULL CHECK (actor_kind IN ('user', 'token', 'anonymous')),
    actor_id   text NOT NULL,
    action     text NOT NULL,
    target_id  text NOT NULL,
    before     jsonb,
    after      jsonb,
    request_id text NOT NULL
);
CREATE INDEX audit_log_of_org ON accounts.audit_log (org_id, seq);

CREATE FUNCTION accounts.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'accounts.% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON accounts.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION accounts.refuse_change();

-- Answers to POSTs that came with an Idempotency-Key. A second one waits on the primary key until the first has committed.
CREATE TABLE accounts.idempotency_keys (
    caller          text NOT NULL,
    idempotency_key text NOT NULL,
    request_hash    bytea NOT NULL,
    -- Sealed like credentials: an answer may hold a new key.
    sealed_answer   bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, idempotency_key)
);
CREATE INDEX idempotency_keys_by_age ON accounts.idempotency_keys (created_at);
