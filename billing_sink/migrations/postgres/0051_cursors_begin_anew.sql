-- what: which of the cursors of the export is to go back to the beginning
-- why: what is in ClickHouse can be made anew from what is here, without stopping anything
-- running version survives it: yes, it goes on where it is

ALTER TABLE billing.export_cursors ADD COLUMN begins_anew boolean NOT NULL DEFAULT false;
