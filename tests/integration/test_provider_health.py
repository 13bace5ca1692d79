"""The health of providers on a real Postgres: what is read of the books, who writes states, and what operators see and do."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from billing_sink.limits import ToldLimits
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import Batch
from billing_sink.spool import SpoolId
from control_plane.catalog.model import Catalog
from control_plane.catalog.postgres_states import KEPT, forget_old_states, lock_states, read_states
from control_plane.catalog.provider_state import Condition, Subject
from control_plane.health.probes import HEADERS, Probes
from control_plane.health.watch import HealthWatch
from control_plane.webhooks.outgoing import judging_http
from gateway_core.clock import utc_now
from gateway_core.ids import ProviderName
from gateway_core.provider_limits import ProviderLimits
from tests.support.api import Api, running_api
from tests.support.catalog_api import PROVIDER, delete, put, serve
from tests.support.catalogs import catalog, provider
from tests.support.logs import QUIET
from tests.support.scripted_provider import scripted_provider

ONE = Subject(ProviderName("one"))
OUT = timedelta(seconds=30)


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


def watch(pool: asyncpg.Pool) -> HealthWatch:
    return HealthWatch(pool, utc_now, QUIET, out_for=OUT)


async def fail(pool: asyncpg.Pool, *, count: int, flags: str = "-", status: int = 500, model: str = "up") -> None:
    """Attempts at `one` that have failed, as the sink records them."""
    await pool.executemany(
        """
        INSERT INTO billing.attempts (request_id, started_at, input_hash, provider, upstream_model, status, response_flags,
            duration_ms, bytes_received, bytes_sent)
        VALUES (gen_random_uuid()::text, now(), '', 'one', $1, $2, $3, 0, 0, 0)
        """,
        [(model, status, flags)] * count,
    )


async def test_failures_in_the_books_take_a_provider_out_once_whoever_looks(api: Api) -> None:
    await serve(api, "m")
    await fail(api.pool, count=5)
    first, second = watch(api.pool), watch(api.pool)
    [(subject, state)] = (await first.look()).items()
    assert (subject, state.condition) == (ONE, Condition.DOWN)
    assert await second.look() == {}
    health = await api.get("/providers/one/health")
    assert (health["state"], health["failed"], health["success_percent"]) == ("down", 5, 0)
    assert len(health["history"]) == 1


@pytest.mark.parametrize(("status", "flags"), [(429, "-"), (0, "DC"), (503, "UO"), (0, "LR"), (400, "-")])
async def test_what_is_not_the_providers_fault_is_not_held_against_it(api: Api, status: int, flags: str) -> None:
    await serve(api, "m")
    await fail(api.pool, count=20, status=status, flags=flags)
    assert await watch(api.pool).look() == {}


async def test_while_another_control_plane_looks_nobody_else_does(api: Api) -> None:
    await serve(api, "m")
    await fail(api.pool, count=5)
    async with api.pool.acquire() as db, db.transaction():
        await lock_states(db)
        assert await watch(api.pool).look() == {}
    assert await watch(api.pool).look() != {}


async def test_a_state_of_a_provider_that_is_gone_is_not_written(api: Api) -> None:
    await fail(api.pool, count=5)
    assert await watch(api.pool).look() == {}


def told(free_in: timedelta | None, *, status: int = 429, ago: timedelta = timedelta()) -> ToldLimits:
    at = utc_now() - ago
    limits = ProviderLimits(retry_at=None if free_in is None else at + free_in)
    return ToldLimits(ProviderName("one"), "up", at, status, limits)


async def test_what_a_provider_says_of_its_limits_is_kept_until_something_newer_is_said(api: Api) -> None:
    ledger, spool = PostgresLedger(api.pool), SpoolId("s")
    await serve(api, "m")
    newer, older = told(timedelta(seconds=20)), told(timedelta(seconds=90), ago=timedelta(seconds=1))
    for number, limits in enumerate((newer, older, newer)):
        await ledger.post(Batch(spool, number, number + 1, (), (), limits=(limits,)))
    health = await api.get("/providers/one/health")
    assert [each["upstream_model"] for each in health["limits"]] == ["up"]
    [(subject, state)] = (await watch(api.pool).look()).items()
    assert (subject, state.condition, state.until) == (
        Subject(ONE.provider, "up"),
        Condition.COOLING,
        newer.limits.retry_at,
    )
    availability = await api.get("/models/m/availability")
    [shown] = availability["providers"]
    assert (shown["state"], shown["why"], len(shown["hours"])) == ("cooling", "too many requests, by its own word", 24)


async def test_an_operator_pauses_with_a_reason_and_it_is_in_the_audit_log(api: Api) -> None:
    await serve(api, "m")
    paused = await api.call("POST", "/providers/one/pause", {"reason": "Its key has leaked."})
    assert (paused.status, paused["action"], paused["target"]) == (202, "provider.pause", "one")
    assert paused["revision"] == await api.pool.fetchval("SELECT max(revision) FROM catalog.revisions")
    health = await api.get("/providers/one/health")
    assert (health["state"], health["why"]) == ("paused", "Its key has leaked.")
    [entry] = [each for each in (await api.get("/audit"))["data"] if each["action"] == "provider.pause"]
    assert (entry["before"]["state"], entry["after"]["state"]) == ("healthy", "paused")
    explained = await api.call("POST", "/routes/explain", {"endpoint": "chat", "model": "m"})
    assert explained["refused_because"] == "every provider of the route that could serve it is paused"
    [[member]] = [group["members"] for group in explained["groups"]]
    assert member["skipped_because"] == "it is paused: Its key has leaked."
    # What it does meanwhile is no reason to take it back, nor is what it is said to be.
    await fail(api.pool, count=9)
    assert await watch(api.pool).look() == {}
    assert (await put(api, "/providers/one", PROVIDER | {"requests_max": 3}, etag="*")).status == 202
    assert (await api.get("/providers/one/health"))["state"] == "paused"


async def test_who_is_resumed_begins_anew_with_all_of_its_models(api: Api) -> None:
    await serve(api, "m")
    await PostgresLedger(api.pool).post(Batch(SpoolId("s"), 0, 1, (), (), limits=(told(timedelta(seconds=50)),)))
    assert await watch(api.pool).look() != {}
    assert (await api.call("POST", "/providers/one/resume", {"reason": "They gave us more."})).status == 202
    assert not any(state.is_out for state in (await read_states(api.pool)).values())
    assert await watch(api.pool).look() == {}
    again = await api.call("POST", "/providers/one/resume", {"reason": "They gave us more."})
    assert again.status == 409


@pytest.mark.parametrize("body", [{}, {"reason": " "}, {"reason": "x" * 501}])
async def test_a_pause_needs_a_reason(api: Api, body: dict[str, Any]) -> None:
    await serve(api, "m")
    refused = await api.call("POST", "/providers/one/pause", body)
    assert (refused.status, refused.pointers) == (422, ["/reason"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/providers/none/health"),
        ("POST", "/providers/none/pause"),
        ("POST", "/providers/none/resume"),
        ("GET", "/models/none/availability"),
    ],
)
async def test_of_what_there_is_not_there_is_no_health(api: Api, method: str, path: str) -> None:
    body = {"reason": "x"} if method == "POST" else None
    assert (await api.call(method, path, body)).status == 404


async def test_what_a_provider_was_goes_with_it_and_after_thirty_days(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    for verb in ("pause", "resume", "pause"):
        await api.call("POST", f"/providers/one/{verb}", {"reason": "x"})
    await forget_old_states(api.pool, utc_now() + KEPT + timedelta(minutes=1))
    [kept] = await api.pool.fetch("SELECT condition FROM catalog.provider_states")
    assert kept["condition"] == "paused"
    assert (await delete(api, "/providers/one")).status == 202
    assert await read_states(api.pool) == {}


async def probes_of(pool: asyncpg.Pool, catalog: Catalog, *, private_allowed: bool = True) -> None:
    """What is due is made, twice: the second time nothing is."""
    async with judging_http(HEADERS, private_allowed=private_allowed) as http:
        probes = Probes(pool, http, lambda: catalog, utc_now, QUIET, every=timedelta(seconds=20))
        await probes.probe_due()
        await probes.probe_due()


async def test_an_idle_provider_is_asked_for_its_models_with_its_credential_once(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    async with scripted_provider() as scripted:
        scripted.content_type, scripted.pieces = "application/json", [b"{}"]
        await probes_of(api.pool, catalog([provider("one", base_url=scripted.url, credential="sk-secret")]))
    assert scripted.paths == ["/v1/models"]
    assert scripted.headers[0]["Authorization"] == "Bearer sk-secret"
    probe = (await api.get("/providers/one/health"))["probe"]
    assert (probe["answered"], probe["status"], probe["failures"]) == (True, 200, 0)


async def test_who_does_not_want_to_be_probed_is_not(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER | {"probed": False})
    async with scripted_provider() as scripted:
        one = provider("one", base_url=scripted.url)
        await probes_of(api.pool, catalog([type(one)(one.name, one.kind, one.base_url, None, probed=False)]))
    assert scripted.paths == []


class DiesAfterTheClaim:
    """A pool whose Postgres goes away while providers are asked."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.fetch = pool.fetch

    async def execute(self, *_: object) -> str:
        raise ConnectionResetError


async def test_neither_a_postgres_that_goes_away_nor_a_provider_that_is_gone_ends_the_probes(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    await put(api, "/providers/two", PROVIDER)
    async with scripted_provider() as scripted, judging_http(HEADERS, private_allowed=True) as http:
        pool: Any = DiesAfterTheClaim(api.pool)
        known = catalog([provider("one", base_url=scripted.url)])
        await Probes(pool, http, lambda: known, utc_now, QUIET, every=timedelta(seconds=20)).probe_due()
        readings = iter([catalog([provider("two", base_url=scripted.url)])])
        gone = catalog([])
        await Probes(
            api.pool, http, lambda: next(readings, gone), utc_now, QUIET, every=timedelta(seconds=20)
        ).probe_due()
    assert len(scripted.paths) == 1


async def test_a_probe_goes_to_no_address_where_no_provider_may_be_and_tells_no_secret(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    async with scripted_provider() as scripted:
        one = provider("one", base_url=scripted.url, credential="sk-secret")
        await probes_of(api.pool, catalog([one]), private_allowed=False)
    assert scripted.paths == []
    shown = await api.get("/providers/one/health")
    assert (shown["probe"]["answered"], shown["probe"]["why"]) == (
        False,
        "asked for its models it could not be reached",
    )
    assert "secret" not in shown.text
    assert SecretStr("sk-secret").get_secret_value() not in await api.pool.fetchval(
        "SELECT to_jsonb(p)::text FROM catalog.provider_probes p"
    )
