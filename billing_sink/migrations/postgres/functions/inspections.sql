-- Asks for an inspection of the books. control_plane calls it; whichever sink comes first answers.
CREATE OR REPLACE FUNCTION billing.ask_for_inspection() RETURNS billing.inspection_orders LANGUAGE sql AS $$
    INSERT INTO billing.inspection_orders DEFAULT VALUES RETURNING *
$$;

-- What has been asked for and nobody is at: from here on the caller is. NULL if there is nothing. Who has not come back
-- after half an hour, the longest that a look may take, is given up.
CREATE OR REPLACE FUNCTION billing.begin_inspection() RETURNS bigint[] LANGUAGE sql AS $$
    WITH begun AS (
        UPDATE billing.inspection_orders SET begun_at = now()
        WHERE finished_at IS NULL AND (begun_at IS NULL OR begun_at < now() - interval '30 minutes') RETURNING order_id
    )
    SELECT array_agg(order_id) FROM begun
$$;

-- Answers what was begun: with an inspection, or with the reason why there is none.
CREATE OR REPLACE FUNCTION billing.finish_inspection(p_orders bigint[], p_inspected_at timestamptz, p_failure text) RETURNS void
LANGUAGE sql AS $$
    UPDATE billing.inspection_orders SET finished_at = now(), inspected_at = p_inspected_at, failure = p_failure
    WHERE order_id = ANY (p_orders) AND finished_at IS NULL
$$;
