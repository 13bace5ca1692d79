-- what: one row for each thing that a provider keeps under an id, and whose it is
-- why: all organisations share our account at a provider, so an id has to be good for its owner alone
-- running version survives it: yes; ids that come with a newer Envoy are written down once a newer sink reads its lines

CREATE TABLE billing.kept_objects (
    -- Of the key that it was made with.
    mode         text NOT NULL CHECK (mode IN ('live', 'test')),
    -- As the provider has said it; nobody else may ever bring the same one.
    object_id    text NOT NULL CHECK (object_id ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$'),
    kind         text NOT NULL,
    org_id       text NOT NULL,
    project_id   text NOT NULL,
    key_id       text NOT NULL,
    -- NULL: the simulator.
    provider     text,
    created_at   timestamptz NOT NULL,
    -- NULL: the provider has not said.
    expires_at   timestamptz,
    -- What the provider said of it when it was made, as JSON, where it is more than the id.
    about        text,
    -- Since when the provider keeps it no longer. The row stays: a line that comes late must not bring it back.
    forgotten_at timestamptz,
    PRIMARY KEY (mode, object_id),
    CHECK ((mode = 'test') = (provider IS NULL))
);
CREATE INDEX kept_objects_of_orgs ON billing.kept_objects (org_id, mode, kind, created_at, object_id) WHERE forgotten_at IS NULL;
