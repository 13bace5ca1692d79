-- what: the time zone of an organisation
-- why: its days and months begin by its own clock: on invoices, in usage
-- running version survives it: yes, it writes none
ALTER TABLE accounts.organizations ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
