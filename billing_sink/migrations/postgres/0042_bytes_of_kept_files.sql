-- what: how long each kept file is, beside what its provider said of it
-- why: what an organisation may keep is bounded in number and in bytes, and that is asked before each upload
-- running version survives it: yes; a file that it writes down counts in the number alone

ALTER TABLE billing.kept_objects ADD COLUMN file_bytes bigint NOT NULL DEFAULT 0 CHECK (file_bytes >= 0);
UPDATE billing.kept_objects SET file_bytes = (about::json ->> 'bytes')::bigint
WHERE kind = 'file' AND about::json ->> 'bytes' ~ '^[0-9]{1,15}$';
