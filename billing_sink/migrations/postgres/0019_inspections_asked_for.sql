-- what: inspections of the books that somebody asks for, and what became of each
-- why: ClickHouse was compared at night only, and whoever asked whether the books are right was told what had been found then
-- running version survives it: yes, it answers none; who asks is told that nobody does

CREATE TABLE billing.inspection_orders (
    order_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked_at     timestamptz NOT NULL DEFAULT now(),
    -- When a sink took it on; again, where the one before never came back with an answer.
    begun_at     timestamptz,
    finished_at  timestamptz,
    -- The one of billing.inspections that answers it.
    inspected_at timestamptz,
    -- Why there is none.
    failure      text,
    CHECK ((finished_at IS NOT NULL)::integer = num_nonnulls(inspected_at, failure))
);
-- Sinks ask every two seconds, and nearly always there is none.
CREATE INDEX inspection_orders_open ON billing.inspection_orders (order_id) WHERE finished_at IS NULL;
