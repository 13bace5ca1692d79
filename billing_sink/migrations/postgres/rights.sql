-- Who may do what in schema `billing`, whole: everything is taken away first. Services come as the roles named here; whoever migrates
-- owns the schema, and nobody else writes to its books but through the functions below.
REVOKE ALL ON SCHEMA billing FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA billing FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC, tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    -- A function that writes runs as the owner, and looks for names in no schema that its caller could put first. One that only reads runs as
    -- whoever asks, who may read as much, and stays a part of the caller's plan.
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'billing'::regnamespace AND provolatile = 'v' AND prorettype <> 'trigger'::regtype
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', v_function);
    END LOOP;
    -- billing.settle and close_slices work in temporary tables that are there or are made. A caller who had made one of that name first, with
    -- a trigger on it, would have the trigger run as the owner.
    EXECUTE format(
        'REVOKE ALL ON DATABASE %I FROM tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink', current_database());
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;

GRANT USAGE ON SCHEMA billing TO tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink;
GRANT SELECT ON ALL TABLES IN SCHEMA billing TO tollgate_control_plane, tollgate_billing_sink;

-- Beside the books: what could not be posted, what was found in them, and what has been copied.
GRANT INSERT (spool_id, byte_offset, request_id, reason, line, slice_id, share_nano_usd, request)
    ON billing.quarantine TO tollgate_billing_sink;
GRANT INSERT ON billing.inspections TO tollgate_billing_sink;
GRANT INSERT, UPDATE ON billing.export_cursors TO tollgate_billing_sink;
GRANT INSERT, UPDATE (sent_file_id, upstream_id, said, ended_at, input_removed_at) ON billing.batches TO tollgate_billing_sink;
GRANT INSERT, DELETE ON billing.batch_lines TO tollgate_billing_sink;

GRANT EXECUTE ON FUNCTION
    billing.settle, billing.record_attempts, billing.record_limits, billing.keep_objects, billing.forget_objects, billing.move_offset, billing.expire_holds, billing.end_stray_holds, billing.mend_held, billing.close_slices, billing.last_of_all, billing.seal,
    billing.add_up_for_providers, billing.check_books, billing.held_by_balance, billing.broken_seals, billing.digest,
    billing.begin_inspection, billing.finish_inspection, billing.place_hold, billing.place_hold_within_budgets, billing.divide_hold
    TO tollgate_billing_sink;
-- Whose it is what a provider keeps, and how much that is.
GRANT SELECT (mode, object_id, kind, org_id, provider, forgotten_at, expires_at, file_bytes) ON billing.kept_objects TO tollgate_ext_authz;
GRANT EXECUTE ON FUNCTION
    billing.kept_files, billing.place_hold, billing.place_hold_within_budgets, billing.open_slice, billing.return_slice
    TO tollgate_ext_authz;
GRANT EXECUTE ON FUNCTION
    billing.open_balance, billing.refill_test_balance, billing.credit, billing.move_money, billing.decide_quarantine,
    billing.quarantined_request, billing.receipt, billing.last_transaction, billing.statement, billing.close_invoice, billing.spent,
    billing.begin_of, billing.quarter_of,
    billing.used_at_provider, billing.sums_of_providers, billing.sums_behind, billing.unaccounted_for,
    billing.keep_reconciliation, billing.ask_for_inspection, billing.refill_analytics, billing.check_books, billing.held_by_balance, billing.broken_seals, billing.digest
    TO tollgate_control_plane;
