-- what: accounts.find_key may be made anew with another shape, the limits of a key among what it tells
-- why: ext_authz keeps them
-- running version survives it: yes, it reads the columns it knows by their names

DROP FUNCTION IF EXISTS accounts.find_key(bytea);
