-- what: reconciliations, each a comparison of a provider's own account of what was used with ours
-- why: drift is only seen when what was found before is kept
-- running version survives it: yes, nobody knows of them

CREATE TABLE billing.reconciliations (
    reconciliation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider          text NOT NULL,
    made_at           timestamptz NOT NULL DEFAULT now(),
    actor_kind        text NOT NULL,
    actor_id          text NOT NULL,
    format            text NOT NULL,
    -- Of the file as the provider gave it.
    file_sha256       text NOT NULL CHECK (file_sha256 ~ '^[0-9a-f]{64}$'),
    -- The days it is about, in UTC; the last one belongs to it.
    first_day         date NOT NULL,
    last_day          date NOT NULL CHECK (last_day >= first_day),
    threshold_ppm     integer NOT NULL CHECK (threshold_ppm >= 0),
    -- The largest difference between the sums of any measure, in millionths of what the provider says.
    drift_ppm         bigint NOT NULL CHECK (drift_ppm >= 0),
    -- How many lines are not within the threshold.
    beyond            integer NOT NULL CHECK (beyond >= 0),
    -- The whole report, as the API shows it.
    report            jsonb NOT NULL
);
CREATE INDEX reconciliations_of_provider ON billing.reconciliations (provider, reconciliation_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.reconciliations
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
