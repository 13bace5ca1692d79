-- what: which transaction wrote an entry of the audit log, or a state of a provider
-- why: billing_sink copies both to ClickHouse in the order of transactions, behind the oldest one still running
-- running version survives it: yes, both are filled by themselves

ALTER TABLE accounts.audit_log ADD COLUMN written_by xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX audit_log_in_commit_order ON accounts.audit_log (written_by, seq);
ALTER TABLE catalog.provider_states ADD COLUMN written_by xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX provider_states_in_commit_order ON catalog.provider_states (written_by, seq);
