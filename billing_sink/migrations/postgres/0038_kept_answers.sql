-- what: whether a request was answered with what was kept of an answer before
-- why: such a request is free, and no provider was asked; its row says so
-- running version survives it: yes, it leaves the flag out

ALTER TABLE billing.requests ADD COLUMN cached boolean NOT NULL DEFAULT false;
