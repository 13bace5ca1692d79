-- what: one row for each batch that was accepted, and one for each of its lines until the batch is over
-- why: a batch is answered within a day, and whoever settles it then has to know what each line may cost and whose it is
-- running version survives it: yes, it does not know of them

CREATE TABLE billing.batches (
    -- Ours, as clients know it; its hold is placed under it.
    batch_id      text PRIMARY KEY,
    mode          text NOT NULL CHECK (mode IN ('live', 'test')),
    org_id        text NOT NULL,
    project_id    text NOT NULL,
    key_id        text NOT NULL,
    -- NULL: the simulator.
    provider      text,
    endpoint      text NOT NULL,
    -- The client's, of which the provider has been sent another one that is ours.
    input_file_id text NOT NULL,
    -- The client's own words for it, as a JSON object.
    metadata      text NOT NULL,
    created_at    timestamptz NOT NULL,
    -- The provider's id; NULL while it is not known whether there is one.
    upstream_id   text,
    -- What the provider said last of it, as JSON.
    said          text,
    -- Since when all of it is settled, and nothing held.
    ended_at      timestamptz,
    CHECK ((mode = 'test') = (provider IS NULL))
);
CREATE INDEX batches_of_orgs ON billing.batches (org_id, mode, created_at, batch_id);
CREATE INDEX batches_open ON billing.batches (created_at) WHERE ended_at IS NULL;

CREATE TABLE billing.batch_lines (
    batch_id        text NOT NULL REFERENCES billing.batches,
    custom_id       text NOT NULL,
    -- Under which it is posted; its place in the input is in it.
    request_id      text NOT NULL,
    -- What is set aside for it within the batch's hold, in nano-USD.
    amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd >= 0),
    -- Of its line in the ledger, what is known before it is answered: `request` and `grant`, as in a line of the spool.
    told            text NOT NULL,
    PRIMARY KEY (batch_id, custom_id)
);
