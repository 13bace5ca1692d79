-- The first moment of a day by the clock of a time zone. A clock that is put back over midnight shows midnight twice, of which AT TIME ZONE
-- means the later one: the day has begun with the earlier, which goes by the offset of the evening before. A clock that leaves midnight
-- out begins the day with what it shows next.
CREATE OR REPLACE FUNCTION billing.begin_of(p_day date, p_time_zone text) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_midnight timestamptz := p_day::timestamp AT TIME ZONE p_time_zone;
    v_evening  timestamptz := v_midnight - interval '6 hours';
    v_earlier  timestamptz := v_evening + (p_day - v_evening AT TIME ZONE p_time_zone);
BEGIN
    IF v_earlier < v_midnight AND v_earlier AT TIME ZONE p_time_zone >= p_day THEN
        RETURN v_earlier;
    END IF;
    RETURN v_midnight;
END $$;

-- What a key of a project, or without a key the whole project, was charged in the day and in the month that a moment is in, by the
-- clock of a time zone; when these end; and what is held for it.
CREATE OR REPLACE FUNCTION billing.spent(
    p_account_id bigint, p_project_id text, p_key_id text, p_time_zone text, p_now timestamptz,
    OUT in_day_nano_usd bigint, OUT in_month_nano_usd bigint, OUT held_nano_usd bigint,
    OUT day_ends_at timestamptz, OUT month_ends_at timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_kind       text := CASE WHEN p_key_id IS NULL THEN 'project' ELSE 'key' END;
    v_id         text := coalesce(p_key_id, p_project_id);
    v_today      date := (p_now AT TIME ZONE p_time_zone)::date;
    v_first      date := date_trunc('month', v_today)::date;
    v_day        timestamptz := billing.begin_of(v_today, p_time_zone);
    v_month      timestamptz := billing.begin_of(v_first, p_time_zone);
BEGIN
    day_ends_at := billing.begin_of(v_today + 1, p_time_zone);
    month_ends_at := billing.begin_of((v_first + interval '1 month')::date, p_time_zone);
    -- Each begins with a quarter of a day of UTC; the days behind that one are whole.
    SELECT coalesce(sum(CASE day
            WHEN (v_day AT TIME ZONE 'UTC')::date THEN (SELECT sum(paid) FROM unnest(quarters[billing.quarter_of(v_day):]) AS paid)
            ELSE amount_nano_usd END), 0) INTO in_day_nano_usd FROM billing.spending
        WHERE account_id = p_account_id AND spender_kind = v_kind AND spender_id = v_id
          AND day >= (v_day AT TIME ZONE 'UTC')::date;
    SELECT coalesce(sum(CASE day
            WHEN (v_month AT TIME ZONE 'UTC')::date THEN (SELECT sum(paid) FROM unnest(quarters[billing.quarter_of(v_month):]) AS paid)
            ELSE amount_nano_usd END), 0) INTO in_month_nano_usd FROM billing.spending
        WHERE account_id = p_account_id AND spender_kind = v_kind AND spender_id = v_id
          AND day >= (v_month AT TIME ZONE 'UTC')::date;
    IF p_key_id IS NULL THEN
        SELECT coalesce(sum(amount_nano_usd), 0) INTO held_nano_usd FROM billing.holds
            WHERE account_id = p_account_id AND project_id = p_project_id AND state = 'held';
    ELSE
        SELECT coalesce(sum(amount_nano_usd), 0) INTO held_nano_usd FROM billing.holds
            WHERE account_id = p_account_id AND project_id = p_project_id AND key_id = p_key_id AND state = 'held';
    END IF;
END $$;

-- As billing.place_hold, within budgets besides: what is held is no more than the rest of the tightest of them, that is, the limit without
-- what was charged in the period and without what is held. NULL is no limit. If that is below the least, nothing is held, and
-- `budget` says which of them is in the way: of those that what was charged leaves too little of, the one that renews last, and
-- `renews_at` when that is. Where there are none, only what is held is in the way, until a running request ends: `renews_at` is NULL.
--
-- Nobody else holds or charges anything of the balance between the look and the hold: both lock it first. The period is that of the
-- database's clock then, by which charges are recorded too, unless a moment is given.
--
-- All amounts and limits are nano-USD (1e-9 US dollars), 0 or more; p_amount_nano_usd, p_least_nano_usd (never NULL here), p_expires_at and
-- p_mode, and the errors, are those of billing.place_hold. p_time_zone: a name of the IANA database; by its clock days and months begin.
CREATE OR REPLACE FUNCTION billing.place_hold_within_budgets(
    p_request_id text, p_org_id text, p_project_id text, p_key_id text, p_amount_nano_usd bigint, p_least_nano_usd bigint,
    p_expires_at timestamptz, p_mode text, p_time_zone text, p_key_per_day bigint, p_key_per_month bigint,
    p_project_per_day bigint, p_project_per_month bigint, p_now timestamptz DEFAULT NULL,
    OUT held_nano_usd bigint, OUT budget text, OUT renews_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_now     timestamptz;
    v_key     record;
    v_project record;
    v_rest    bigint;
BEGIN
    SELECT account_id INTO v_account FROM billing.accounts
        WHERE kind = 'balance' AND org_id = p_org_id AND mode = p_mode FOR UPDATE;
    v_now := coalesce(p_now, clock_timestamp());
    SELECT * INTO v_key FROM billing.spent(v_account, p_project_id, p_key_id, p_time_zone, v_now)
        WHERE coalesce(p_key_per_day, p_key_per_month) IS NOT NULL;
    SELECT * INTO v_project FROM billing.spent(v_account, p_project_id, NULL, p_time_zone, v_now)
        WHERE coalesce(p_project_per_day, p_project_per_month) IS NOT NULL;
    -- What costs nothing fits into every budget, also into one that was lowered below what is spent.
    SELECT min(b.rest),
           (array_agg(b.name ORDER BY b.is_spent DESC, b.ends_at DESC, b.name) FILTER (WHERE b.rest < p_least_nano_usd))[1],
           max(b.ends_at) FILTER (WHERE b.is_spent)
    INTO v_rest, budget, renews_at FROM (
        SELECT v.name, v.ends_at, greatest(v.unspent - v.held, 0) AS rest, greatest(v.unspent, 0) < p_least_nano_usd AS is_spent
        FROM (VALUES
            ('key_per_day', p_key_per_day - v_key.in_day_nano_usd, v_key.held_nano_usd, v_key.day_ends_at),
            ('key_per_month', p_key_per_month - v_key.in_month_nano_usd, v_key.held_nano_usd, v_key.month_ends_at),
            ('project_per_day', p_project_per_day - v_project.in_day_nano_usd, v_project.held_nano_usd, v_project.day_ends_at),
            ('project_per_month', p_project_per_month - v_project.in_month_nano_usd, v_project.held_nano_usd, v_project.month_ends_at)
        ) AS v (name, unspent, held, ends_at) WHERE v.unspent IS NOT NULL
    ) b;
    -- A request that holds something already is answered by what it holds, which may be what is lacking.
    IF budget IS NULL OR EXISTS (SELECT FROM billing.holds WHERE request_id = p_request_id) THEN
        held_nano_usd := billing.place_hold(
            p_request_id, p_org_id, p_key_id, least(p_amount_nano_usd, v_rest), p_expires_at, p_mode, p_least_nano_usd,
            p_project_id);
        budget := NULL;
        renews_at := NULL;
    END IF;
END $$;

COMMENT ON FUNCTION billing.place_hold_within_budgets IS
    'billing.place_hold, and no more than budgets leave. Amounts and limits are nano-USD (1e-9 US dollars), a NULL limit is none. Where nothing is held '
    'because of a budget, it is named, with the moment it renews (NULL: only running requests are in its way).';
