-- What ext_authz is told of a key has its limits too: a function of another shape, which stands beside the migrations.
DROP FUNCTION IF EXISTS accounts.find_key(bytea);
