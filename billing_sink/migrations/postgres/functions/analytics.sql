-- Has everything in ClickHouse made anew from what is here: whoever copies empties it first.
CREATE OR REPLACE FUNCTION billing.refill_analytics() RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO billing.export_cursors (name, written_by, seq, begins_anew)
    SELECT name, '0', 0, true FROM unnest(ARRAY['requests', 'attempts', 'provider_health', 'audit', 'roll_ups']) AS cursors (name)
    ON CONFLICT (name) DO UPDATE SET begins_anew = true
$$;
