-- what: the file that the provider of a batch was sent as its input, and since when it is gone from there
-- why: a batch that the provider never began, or that nobody knows to have begun, left its input there for ever
-- running version survives it: yes, it does not know of them; what it sends meanwhile it removes as before

ALTER TABLE billing.batches
    -- Ours, and nobody's to ask for; NULL where nobody knows whether the provider has it.
    ADD COLUMN sent_file_id     text,
    ADD COLUMN input_removed_at timestamptz;

UPDATE billing.batches SET input_removed_at = ended_at WHERE ended_at IS NOT NULL;
UPDATE billing.batches SET sent_file_id = substring(said FROM '"input_file_id": "([A-Za-z0-9_-]+)"') WHERE ended_at IS NULL;

CREATE INDEX batches_with_input ON billing.batches (ended_at) WHERE ended_at IS NOT NULL AND input_removed_at IS NULL;
