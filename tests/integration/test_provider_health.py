"""The health of providers on a real Postgres: what is read of the books, who writes states, and what operators see and do."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from billing_sink.access_log import AttemptLine, parse_any_line
from billing_sink.limits import ToldLimits
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import Attempt, SpoolBatch, hash_of
from billing_sink.spool import RawLine, SpoolId
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
from tests.support.spool_lines import failed_attempt, render

ONE = Subject(ProviderName("one"))
OUT = timedelta(seconds=30)


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


def watch(pool: asyncpg.Pool) -> HealthWatch:
    return HealthWatch(pool, utc_now, QUIET, out_for=OUT)


async def fail(
    pool: asyncpg.Pool,
    org_id: str | None = None,
    *,
    count: int,
    flags: str = "-",
    status: int = 500,
    model: str = "up",
    own_reply: bool = False,
) -> None:
    """Attempts at `one` that have failed, as the sink records them."""
    await pool.executemany(
        """
        INSERT INTO billing.attempts (request_id, started_at, input_hash, provider, upstream_model, status, response_flags,
            duration_ms, bytes_received, bytes_sent, org_id, own_reply)
        VALUES (gen_random_uuid()::text, now(), '', 'one', $1, $2, $3, 0, 0, 0, $4, $5)
        """,
        [(model, status, flags, org_id, own_reply)] * count,
    )


async def served(
    pool: asyncpg.Pool,
    org_id: str,
    *,
    request_id: str | None = None,
    provider: str = "one",
    status: int = 200,
    flags: str = "-",
) -> None:
    """A request that a provider has answered well half a minute ago."""
    await pool.execute(
        """
        INSERT INTO billing.requests (
            request_id, input_hash, mode, outcome, usage_source, org_id, project_id, key_id, provider, upstream_model, stream, status,
            attempts, response_flags, started_at, duration_ms, bytes_received, bytes_sent, sse_events, meters, cost_nano_usd,
            price_nano_usd, absorbed_nano_usd, recorded_at)
        VALUES (coalesce($1, gen_random_uuid()::text), '', 'live', 'free', 'none', $2, 'prj', 'key_' || $2, $3, 'up', false, $4, 1,
            $5, now() - interval '30 s', 1, 1, 1, 0, '{}', 0, 0, 0, now() - interval '29 s')
        """,
        *(request_id, org_id, provider, status, flags),
    )


async def test_sessions_that_were_begun_count_as_answered_whoever_ended_them(api: Api) -> None:
    await serve(api, "m")
    for number, flags in enumerate(["-", "UC", "DC", "UC,DC"]):
        await served(api.pool, f"org_{number}", status=101, flags=flags)
    await fail(api.pool, count=20, status=101, flags="UC")
    assert await watch(api.pool).look() == {}
    health = await api.get("/providers/one/health")
    assert (health["state"], health["answered"], health["failed"]) == ("healthy", 4, 0)
    assert health["duration_ms"] is None, "how long they were open is no latency"


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


@pytest.mark.parametrize(("status", "flags"), [(429, "-"), (0, "DC"), (503, "UO"), (0, "LR"), (400, "-"), (101, "UC")])
async def test_what_is_not_the_providers_fault_is_not_held_against_it(api: Api, status: int, flags: str) -> None:
    await serve(api, "m")
    await fail(api.pool, count=20, status=status, flags=flags)
    assert await watch(api.pool).look() == {}


@pytest.mark.parametrize(("status", "flags"), [(500, "-"), (401, "-"), (0, "UT"), (0, "UC"), (200, "UPE")])
async def test_one_organisation_takes_a_provider_from_nobody_else(api: Api, status: int, flags: str) -> None:
    await serve(api, "m")
    await served(api.pool, "org_bystander")
    await fail(api.pool, "org_poisoner", count=50, status=status, flags=flags)
    # Nor as long as its requests go on elsewhere, and nobody knows whose they are.
    await fail(api.pool, count=50, status=status, flags=flags)
    assert await watch(api.pool).look() == {}
    await fail(api.pool, "org_bystander", count=3, status=status, flags=flags)
    [(subject, state)] = (await watch(api.pool).look()).items()
    assert (subject, state.condition) == (ONE, Condition.DOWN)


async def test_one_organisations_failures_do_not_hide_those_of_others(api: Api) -> None:
    await serve(api, "m")
    await served(api.pool, "org_bystander")
    await fail(api.pool, "org_bystander", count=3)
    await fail(api.pool, "org_poisoner", count=5000)
    assert ONE in await watch(api.pool).look()


async def test_whose_a_failure_was_is_known_by_its_request_when_that_has_ended(api: Api) -> None:
    await serve(api, "m")
    await served(api.pool, "org_1")
    await fail(api.pool, count=6)
    assert await watch(api.pool).look() == {}
    for number, request_id in enumerate(await api.pool.fetch("SELECT request_id FROM billing.attempts")):
        await served(api.pool, f"org_{number}", request_id=request_id[0], provider="backup")
    assert ONE in await watch(api.pool).look()


async def test_that_nobody_could_connect_is_the_providers_whoever_has_tried(api: Api) -> None:
    await serve(api, "m")
    await served(api.pool, "org_bystander")
    await fail(api.pool, "org_1", count=5, status=0, flags="UF,URX")
    [state] = (await watch(api.pool).look()).values()
    assert state.by_probe


async def test_what_the_gateway_has_answered_itself_is_not_held_against_the_provider(api: Api) -> None:
    await serve(api, "m")
    began = utc_now()
    ours = [
        # The translator was gone, the credential missing, the provider full, the client gone.
        {"status": 503, "own_reply": "-", "cluster": "provider/one~chat"},
        {"status": 403, "own_reply": "-"},
        {"status": 503, "own_reply": "UO"},
        {"status": 503, "response_flags": "UO"},
        {"status": 0, "response_flags": "DC"},
        {"status": 0, "response_flags": "-"},
        {"status": 402, "response_flags": "-"},
    ]
    for number, fields in enumerate(ours * 10):
        at = (began + timedelta(milliseconds=number)).isoformat()
        line = render(failed_attempt(f"r{number}", **{"cluster": "provider/one", "start_time": at, **fields}))
        await post(api.pool, line)
    assert await api.pool.fetchval("SELECT count(*) FROM billing.attempts WHERE own_reply") == 20
    assert await watch(api.pool).look() == {}
    assert (await api.get("/providers/one/health"))["failed"] == 0


async def test_an_attempt_has_its_organisation_where_the_line_says_it(api: Api) -> None:
    await post(api.pool, render(failed_attempt("told", org_id="org_told")))
    await post(api.pool, render(failed_attempt("untold", org_id=None, status=0, response_flags="UT")))
    rows = await api.pool.fetch("SELECT request_id, org_id, own_reply FROM billing.attempts ORDER BY request_id")
    assert [tuple(row) for row in rows] == [("told", "org_told", False), ("untold", None, False)]


async def post(pool: asyncpg.Pool, content: bytes) -> None:
    """Have the sink read a line about an attempt, and record it."""
    raw = RawLine(0, content)
    line = parse_any_line(content)
    assert isinstance(line, AttemptLine)
    attempt = Attempt(hash_of(raw), raw, line)
    await PostgresLedger(pool).post(SpoolBatch(SpoolId(line.request_id), 0, 1, (), (), (attempt,)))


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
        await ledger.post(SpoolBatch(spool, number, number + 1, (), (), limits=(limits,)))
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


async def test_the_list_of_providers_says_who_gets_requests(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    await put(api, "/providers/two", PROVIDER)
    await api.call("POST", "/providers/one/pause", {"reason": "Its key has leaked."})
    listed = (await api.get("/providers"))["data"]
    assert {each["name"]: each["state"] for each in listed} == {"one": "paused", "two": "healthy"}


async def test_who_is_resumed_begins_anew_with_all_of_its_models(api: Api) -> None:
    await serve(api, "m")
    await PostgresLedger(api.pool).post(SpoolBatch(SpoolId("s"), 0, 1, (), (), limits=(told(timedelta(seconds=50)),)))
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
