"""The health of providers in Postgres, as operators see it."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from control_plane.catalog.provider_state import Condition
from control_plane.database import Database, written
from control_plane.health.availability import HOURS, Turn, available_percents
from control_plane.health.model import (
    Availability,
    AvailabilityAtProvider,
    Health,
    Hour,
    LastProbe,
    Limits,
    ModelState,
    Percentiles,
    State,
    StateChange,
    StateOfProvider,
)
from control_plane.health.postgres_evidence import is_failure
from gateway_core.usage import SWITCHED

MINUTES: Final = 5
HISTORY_MAX: Final = 100
_TOO_MANY_REQUESTS: Final = 429

_WELL: Final = State(state=Condition.HEALTHY, since=None, until=None, why=None)
_STATE: Final = "condition AS state, since, until, why"
_CHANGE: Final = f"{_STATE}, upstream_model, actor_kind || ' ' || actor_id AS by"

_FIGURES: Final = """
    SELECT count(*) AS answered,
        percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY first_byte_ms) AS first_byte_ms,
        percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE status <> $3) AS duration_ms
    FROM billing.requests
    WHERE recorded_at > $2 AND provider = $1 AND mode = 'live' AND NOT own_key AND attempts > 0 AND status <> ALL ('{401,403,408,429}')
      AND (status = $3 OR status BETWEEN 200 AND 499 AND coalesce(response_flags, '-') IN ('-', ''))
"""
"""How long a session is open says nothing of its provider."""


async def state_of(db: Database, provider: str) -> StateOfProvider:
    """What a provider is now."""
    row = await db.fetchrow(
        f"SELECT {_CHANGE} FROM catalog.current_states WHERE provider = $1 AND upstream_model IS NULL",  # noqa: S608 - columns
        provider,
    )
    found = dict(_WELL) | {"by": None} if row is None else dict(row)
    return StateOfProvider.model_validate({**found, "provider": provider})


async def health_of(db: Database, provider: str, now: datetime) -> Health:
    """How a provider is, and how it was."""
    begin = now - timedelta(minutes=MINUTES)
    figures = written(await db.fetchrow(_FIGURES, provider, begin, SWITCHED))
    attempts = await db.fetch(
        """
        SELECT status, coalesce(response_flags, '-') AS flags, count(*) AS attempts FROM billing.attempts
        WHERE recorded_at > $2 AND provider = $1 AND NOT own_key AND NOT own_reply GROUP BY 1, 2
        """,
        *(provider, begin),
    )
    answered = figures["answered"]
    failed = sum(row["attempts"] for row in attempts if is_failure(row["status"], row["flags"].split(",")))
    limited = sum(row["attempts"] for row in attempts if row["status"] == _TOO_MANY_REQUESTS)
    tried = answered + failed + limited
    history = await db.fetch(
        f"SELECT {_CHANGE} FROM catalog.provider_states WHERE provider = $1 ORDER BY seq DESC LIMIT $2",  # noqa: S608 - columns
        *(provider, HISTORY_MAX),
    )
    models = await db.fetch(
        f"""
        SELECT {_STATE}, upstream_model FROM catalog.current_states
        WHERE provider = $1 AND upstream_model IS NOT NULL AND condition <> 'healthy' ORDER BY upstream_model
        """,  # noqa: S608 - columns
        provider,
    )
    limits = await db.fetch(
        "SELECT * FROM billing.provider_limits WHERE provider = $1 ORDER BY upstream_model", provider
    )
    return Health(
        **dict(await state_of(db, provider)),
        minutes=MINUTES,
        answered=answered,
        failed=failed,
        limited=limited,
        success_percent=round(100 * answered / tried, 2) if tried else None,
        first_byte_ms=_percentiles(figures["first_byte_ms"]),
        duration_ms=_percentiles(figures["duration_ms"]),
        probe=await _last_probe(db, provider),
        models=[ModelState.model_validate(dict(row)) for row in models],
        limits=[Limits.model_validate(dict(row)) for row in limits],
        history=[StateChange.model_validate(dict(row)) for row in history],
    )


async def availability_of(db: Database, model: str, now: datetime) -> Availability:
    """Where a model is to be had."""
    deployments = await db.fetch(
        "SELECT provider, upstream_model FROM catalog.deployments WHERE model = $1 ORDER BY provider", model
    )
    rows = await db.fetch(
        f"""
        SELECT {_STATE}, s.provider, s.upstream_model,
            lead(since) OVER (PARTITION BY s.provider, s.upstream_model ORDER BY s.seq) AS ended_at
        FROM catalog.provider_states s JOIN catalog.deployments d ON d.provider = s.provider
            AND (s.upstream_model IS NULL OR s.upstream_model = d.upstream_model)
        WHERE d.model = $1 ORDER BY s.seq
        """,  # noqa: S608 - columns
        model,
    )
    began = now - timedelta(hours=HOURS)
    histories: dict[tuple[str, str | None], list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        if row["ended_at"] is None or row["ended_at"] > began:
            histories[row["provider"], row["upstream_model"]].append(row)
    return Availability(
        model=model,
        providers=[
            _at(
                each["provider"],
                each["upstream_model"],
                [histories[each["provider"], name] for name in (None, each["upstream_model"])],
                now,
            )
            for each in deployments
        ],
    )


def _at(
    provider: str, upstream_model: str, histories: list[list[asyncpg.Record]], now: datetime
) -> AvailabilityAtProvider:
    current = [State.model_validate(dict(history[-1])) for history in histories if history]
    state = next((each for each in current if each.state is not Condition.HEALTHY), _WELL)
    turns = [[Turn(row["since"], row["state"] != Condition.HEALTHY) for row in history] for history in histories]
    return AvailabilityAtProvider(
        **dict(state),
        provider=provider,
        upstream_model=upstream_model,
        hours=[Hour(began_at=hour, available_percent=percent) for hour, percent in available_percents(turns, now)],
    )


async def _last_probe(db: Database, provider: str) -> LastProbe | None:
    row = await db.fetchrow(
        """
        SELECT ended_at AS at, answered, status, why, failures FROM catalog.provider_probes
        WHERE provider = $1 AND ended_at IS NOT NULL
        """,
        provider,
    )
    return None if row is None else LastProbe.model_validate(dict(row))


def _percentiles(found: list[int] | None) -> Percentiles | None:
    """None where nothing was counted."""
    return None if not found or found[0] is None else Percentiles(p50=found[0], p99=found[1])
