-- what: in what state each provider is, or one of its models, since when and why, with what it was before; and what probes have found
-- why: who fails, is over its limits or is paused by an operator gets no requests
-- running version survives it: yes, it sends requests to all of them

ALTER TABLE catalog.providers ADD COLUMN probed boolean NOT NULL DEFAULT true;

-- The latest row of each is what it is now; who has none is healthy. Written under the advisory lock `tollgate.provider_states`.
CREATE TABLE catalog.provider_states (
    seq            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider       text NOT NULL REFERENCES catalog.providers ON DELETE CASCADE,
    -- The provider's own name of one model that alone is meant; NULL: all of them.
    upstream_model text,
    condition      text NOT NULL CHECK (condition IN ('healthy', 'cooling', 'down', 'paused')),
    since          timestamptz NOT NULL,
    -- NULL: until somebody says otherwise.
    until          timestamptz,
    why            text,
    -- How often it has been out, this time included, each time soon after the last.
    times          integer NOT NULL DEFAULT 0 CHECK (times >= 0),
    -- Whether a probe that is answered shows that it is well.
    by_probe       boolean NOT NULL DEFAULT false,
    actor_kind     text,
    actor_id       text,
    CHECK ((condition IN ('cooling', 'down')) = (until IS NOT NULL)),
    CHECK (condition = 'healthy' OR why IS NOT NULL),
    CHECK (condition <> 'paused' OR (upstream_model IS NULL AND actor_kind IS NOT NULL))
);
CREATE INDEX provider_states_latest ON catalog.provider_states (provider, upstream_model, seq DESC);
CREATE VIEW catalog.current_states AS
    SELECT DISTINCT ON (provider, upstream_model) * FROM catalog.provider_states
    ORDER BY provider, upstream_model, seq DESC;

-- The latest probe of each.
CREATE TABLE catalog.provider_probes (
    provider text PRIMARY KEY REFERENCES catalog.providers ON DELETE CASCADE,
    -- Whoever makes it writes this first, so that nobody else makes it too.
    begun_at timestamptz NOT NULL,
    ended_at timestamptz,
    answered boolean,
    status   integer,
    why      text,
    -- In a row.
    failures integer NOT NULL DEFAULT 0
);
