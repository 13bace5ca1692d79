-- what: billing.place_hold holds as much of an amount as is free, and returns how much that is; it stands in functions/holds.sql
-- why: near the end of the money an answer is made shorter instead of refused
-- running version survives it: yes, it says no least amount and reads what is held as true; only models that cost nothing, whose
--     holds are zero, are refused until it is replaced

DROP FUNCTION billing.place_hold(text, text, text, bigint, timestamptz, text);
