-- Who may do what in schemas `accounts`, `catalog` and `payments`, and in `public`, whole: everything is taken away first. Services come as
-- the roles named here; whoever migrates owns the schemas.
REVOKE ALL ON SCHEMA accounts, catalog, payments
    FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL TABLES IN SCHEMA accounts, catalog, payments
    FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA accounts, catalog, payments
    FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA accounts, catalog, payments
    FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE CREATE ON SCHEMA public FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON public.tollgate_migrations, public.tollgate_functions
    FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;

GRANT USAGE ON SCHEMA accounts, catalog, payments TO tollgate_control_plane;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA accounts, catalog, payments TO tollgate_control_plane;
-- What is written there stays as it is.
REVOKE UPDATE, DELETE ON accounts.audit_log, catalog.prices, catalog.terms, catalog.term_prices FROM tollgate_control_plane;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accounts, catalog, payments TO tollgate_control_plane;

-- What ext_authz reads of people and their keys it asks these for; of the catalogue it sees everything but credentials.
ALTER FUNCTION accounts.find_key SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION accounts.touch_keys SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION accounts.report_authorizer SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION accounts.dismiss_authorizer SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
GRANT USAGE ON SCHEMA accounts, catalog TO tollgate_ext_authz;
GRANT EXECUTE ON FUNCTION
    accounts.find_key, accounts.touch_keys, accounts.report_authorizer, accounts.dismiss_authorizer
    TO tollgate_ext_authz;
GRANT SELECT ON
    accounts.key_changes, accounts.live_authorizers, catalog.revisions, catalog.models, catalog.model_aliases, catalog.routes, catalog.served, catalog.prices,
    catalog.terms, catalog.term_prices, catalog.own_key_changes, catalog.own_key_fees
    TO tollgate_ext_authz;
GRANT SELECT (name, kind, requests_max, requests_per_minute_max, tokens_per_minute_max) ON catalog.providers TO tollgate_ext_authz;
GRANT SELECT (org_id, provider, fallback) ON catalog.own_keys TO tollgate_ext_authz;

ALTER FUNCTION accounts.find_key_by_id SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
GRANT USAGE ON SCHEMA accounts, catalog TO tollgate_billing_sink;
GRANT EXECUTE ON FUNCTION accounts.find_key_by_id TO tollgate_billing_sink;
GRANT SELECT ON
    catalog.revisions, catalog.models, catalog.model_aliases, catalog.routes, catalog.served, catalog.prices, catalog.terms, catalog.term_prices,
    catalog.own_key_fees
    TO tollgate_billing_sink;
GRANT SELECT (name, kind) ON catalog.providers TO tollgate_billing_sink;
-- What it copies to ClickHouse; of changes not from what to what.
GRANT SELECT (written_by, seq, at, org_id, actor_kind, actor_id, action, target_id, request_id) ON accounts.audit_log TO tollgate_billing_sink;
GRANT SELECT ON catalog.provider_states TO tollgate_billing_sink;
