-- what: an Envoy that does not answer what it was sent is silent, and no operation waits for it
-- why: one that stood still, or sat behind a network that swallows, kept every change pending for ever
-- running version survives it: yes, it says of none that it is silent
ALTER TABLE catalog.envoy_nodes ADD COLUMN is_silent boolean NOT NULL DEFAULT false;
CREATE OR REPLACE VIEW catalog.connected_nodes AS
    SELECT * FROM catalog.envoy_nodes WHERE seen_at > now() - interval '10 seconds';

-- Those whose word counts.
CREATE VIEW catalog.answering_nodes AS SELECT * FROM catalog.connected_nodes WHERE NOT is_silent;
