"""Prices and terms through the API, on a real Postgres: versions, schedules, what is refused, and what is pinned."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from billing_sink.postgres_prices import PostgresPrices
from billing_sink.prices import PriceBook
from control_plane.price_schedule import PriceSchedule
from ext_authz.postgres_offers import PostgresOffers
from gateway_core.clock import utc_now
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.pricing import charge
from gateway_core.usage import Meter, Usage
from tests.support.api import Account, Api, running_api
from tests.support.catalog_api import MODEL, PROVIDER, put
from tests.support.logs import QUIET

INPUT: dict[str, Any] = {"meter": "input", "unit": "1M tokens", "condition": {}, "cost": "0.15", "price": "0.20"}
OUTPUT: dict[str, Any] = {"meter": "output", "unit": "1K tokens", "condition": {}, "cost": "0.0006", "price": "0.001"}
LONG: dict[str, Any] = INPUT | {"condition": {"input_tokens_above": 1000}, "cost": "0.30", "price": "0.40"}
USAGE = Usage({Meter.INPUT: 1_000, Meter.OUTPUT: 1_000})


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        operator = running.as_(await running.operator_token())
        for provider in ("one", "two"):
            assert (await put(operator, f"/providers/{provider}", PROVIDER)).status == 202
            for model in ("m", "n"):
                if provider == "one":
                    assert (await put(operator, f"/models/{model}", MODEL)).status == 202
                deployed = await put(operator, f"/deployments/{model}/{provider}", {"upstream_model": "up"})
                assert deployed.status == 202
        yield operator


@pytest.fixture
async def tenant(api: Api) -> Account:
    return await api.as_(None).sign_up("tenant@example.com")


def body(*prices: dict[str, Any], model: str = "m", provider: str = "one", **fields: Any) -> dict[str, Any]:
    return {"model": model, "provider": provider, "prices": [*prices], **fields}


async def add(api: Api, *prices: dict[str, Any], **fields: Any) -> int:
    """A price version from now on; returns its revision."""
    reply = await api.post("/prices", body(*prices, **fields))
    assert (reply.status, reply["state"]) == (202, "pending"), reply.text
    return int(reply["revision"])


async def schedule(api: Api, at: datetime, *prices: dict[str, Any], **fields: Any) -> str:
    """A price version from a later moment on; returns its id."""
    reply = await api.post("/prices", body(*prices, effective_from=at.isoformat(), **fields))
    assert (reply.status, reply["state"]) == (202, "scheduled"), reply.text
    return str(reply["id"])


def publisher(api: Api) -> PriceSchedule:
    return PriceSchedule(api.pool, api.clock.now, secrets.token_bytes, QUIET)


async def newest(api: Api, model: str = "m", provider: str = "one") -> Any:
    reply = await api.get(f"/prices?model={model}&provider={provider}")
    return reply["data"][0] if reply["data"] else None


async def book(pool: asyncpg.Pool) -> PriceBook:
    return await PostgresPrices(pool).read(PriceBook.of(PriceVersion(0), ()))


def charged(prices: PriceBook, org_id: str, version: int, *, model: str = "m", provider: str = "one") -> int:
    """What the usage costs an organisation that was admitted at a version."""
    at = (ModelName(model), ProviderName(provider), PriceVersion(version))
    return charge(USAGE, prices.find(*at), prices.terms(OrgId(org_id), *at)).price_nano_usd


async def test_a_version_is_shown_as_it_was_written_and_its_operation_has_its_revision(api: Api) -> None:
    reply = await api.post("/prices", body(INPUT, OUTPUT, LONG))
    assert (reply.status, reply["action"], reply["target"]) == (202, "price.add", "m at one")
    price = await newest(api)
    assert price["prices"] == [INPUT, OUTPUT, LONG]
    assert (price["version"], price["free"]) == (reply["revision"], False)
    assert (await api.get(f"/operations/{reply['id']}")).document == reply.document
    [entry] = [each for each in (await api.get("/audit"))["data"] if each["action"] == "price.add"]
    assert (entry["before"], entry["after"]["prices"]) == (None, [INPUT, OUTPUT, LONG])


async def test_a_newer_version_takes_the_place_of_the_whole_older_one_which_stays_in_the_history(api: Api) -> None:
    first = await add(api, INPUT, OUTPUT)
    second = await add(api, INPUT | {"price": "1.00"})
    other = await add(api, INPUT, provider="two")
    assert [each["version"] for each in (await api.get("/prices"))["data"]] == [other, second]
    history = (await api.get("/prices?history=true&provider=one"))["data"]
    assert [(each["version"], len(each["prices"])) for each in history] == [(second, 1), (first, 2)]
    assert (await api.get("/prices?model=unknown"))["data"] == []
    page = await api.get("/prices?history=true&limit=2")
    rest = await api.get(f"/prices?history=true&limit=2&cursor={page['next_cursor']}")
    assert [each["version"] for each in (*page["data"], *rest["data"])] == [other, second, first]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("sent", "pointers"),
    [
        (body(), ["/prices"]),
        (body(INPUT, model="n", provider="three"), ["/model"]),
        (body(INPUT, model="unknown"), ["/model"]),
        (body(INPUT, INPUT | {"price": "9"}), ["/prices/1"]),
        (body(INPUT, OUTPUT | {"condition": {"input_tokens_above": 1}}), ["/prices/1/condition"]),
        (body(INPUT, OUTPUT | {"condition": {"batch": True}}), ["/prices/1/condition/batch"]),
        (body(INPUT | {"price": "0.0000000001"}), ["/prices/0/price"]),
        (body(INPUT | {"cost": "-1"}), ["/prices/0/cost"]),
        (body(INPUT | {"unit": "request"}), ["/prices/0/unit"]),
        (body(INPUT, free=True), ["/prices"]),
        (body(INPUT, effective_from="tomorrow"), ["/effective_from"]),
        (body(INPUT, effective_from="2030-01-01T00:00:00"), ["/effective_from"]),
        (body(INPUT, model="", effective_from="2030-01-01T00:00:00Z"), ["/model"]),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(
    api: Api, sent: dict[str, Any], pointers: list[str]
) -> None:
    before = await api.pool.fetchval("SELECT max(revision) FROM catalog.revisions")
    reply = await api.post("/prices", sent)
    assert (reply.status, reply.pointers) == (422, pointers), reply.text
    assert await api.pool.fetchval("SELECT max(revision) FROM catalog.revisions") == before
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.prices") == 0
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.scheduled_prices") == 0


async def test_a_rehearsal_writes_neither_a_price_nor_a_schedule(api: Api) -> None:
    soon = (api.clock.now() + timedelta(hours=1)).isoformat()
    for sent in (body(INPUT), body(INPUT, effective_from=soon)):
        assert (await api.post("/prices?dry_run=true", sent)).status == 202
    assert await newest(api) is None
    assert (await api.get("/prices/scheduled"))["data"] == []


async def test_a_free_version_lets_a_route_be_published_and_costs_nothing(api: Api, tenant: Account) -> None:
    route = {"match": "m", "groups": [[{"provider": "one"}]]}
    assert (await put(api, "/routes/m", route)).pointers == ["/groups/0/0/provider"]
    version = await add(api, free=True)
    assert (await newest(api))["free"] is True
    assert (await put(api, "/routes/m", route)).status == 202
    assert charged(await book(api.pool), tenant.org_id, version) == 0
    offers = (await PostgresOffers.read(api.pool, utc_now, QUIET)).offers
    assert len(offers.by_model[ModelName("m")].prices[Endpoint.CHAT]) == 1


async def test_a_scheduled_price_is_in_force_once_it_is_due_and_not_before(api: Api) -> None:
    first = await add(api, INPUT)
    due = api.clock.now() + timedelta(hours=1)
    schedule_id = await schedule(api, due, OUTPUT, INPUT | {"price": "9.00"})
    assert await publisher(api).publish_next() is None
    assert (await newest(api))["version"] == first
    [waiting] = (await api.get("/prices/scheduled"))["data"]
    assert (waiting["id"], waiting["prices"]) == (schedule_id, [OUTPUT, INPUT | {"price": "9.00"}])
    assert datetime.fromisoformat(waiting["effective_from"]) == due

    api.clock.ahead = timedelta(hours=1)
    published = await publisher(api).publish_next()
    assert published is not None
    assert (published.action, published.target) == ("price.publish", "m at one")
    price = await newest(api)
    assert (price["version"], price["prices"]) == (published.revision, waiting["prices"])
    assert (await api.get("/prices/scheduled"))["data"] == []
    assert await publisher(api).publish_next() is None
    entries = {each["action"]: each for each in (await api.get("/audit"))["data"]}
    assert entries["price.publish"]["actor_id"] == entries["price.schedule"]["actor_id"]
    assert entries["price.publish"]["before"]["version"] == first


async def test_a_scheduled_price_can_be_withdrawn_once(api: Api) -> None:
    schedule_id = await schedule(api, api.clock.now() + timedelta(hours=1), INPUT)
    assert (await api.delete(f"/prices/scheduled/{schedule_id}")).status == 204
    assert (await api.delete(f"/prices/scheduled/{schedule_id}")).status == 404
    api.clock.ahead = timedelta(hours=2)
    assert await publisher(api).publish_next() is None
    assert await newest(api) is None


async def test_a_moment_that_is_past_is_now(api: Api) -> None:
    await add(api, INPUT, effective_from="2020-01-01T00:00:00Z")
    assert (await newest(api))["prices"] == [INPUT]


async def test_several_control_planes_publish_each_price_once_and_in_the_order_of_their_moments(api: Api) -> None:
    began = api.clock.now()
    # Scheduled in another order than they are due.
    for minutes in (7, 3, 9, 1, 5):
        await schedule(api, began + timedelta(minutes=minutes), INPUT | {"price": f"{minutes}.00"})
    api.clock.ahead = timedelta(minutes=10)

    async def publish_all() -> int:
        count = 0
        while await publisher(api).publish_next():
            count += 1
        return count

    assert sum(await asyncio.gather(*(publish_all() for _ in range(4)))) == 5
    history = (await api.get("/prices?history=true"))["data"]
    assert [each["prices"][0]["price"] for each in history] == ["9.00", "7.00", "5.00", "3.00", "1.00"]
    assert len({each["version"] for each in history}) == 5


async def test_a_price_for_now_overtakes_one_that_is_due_and_not_yet_published(api: Api) -> None:
    await schedule(api, api.clock.now() + timedelta(minutes=1), INPUT)
    await schedule(api, api.clock.now() + timedelta(hours=9), INPUT, OUTPUT)
    await schedule(api, api.clock.now() + timedelta(minutes=1), INPUT, OUTPUT, provider="two")
    api.clock.ahead = timedelta(minutes=2)
    await add(api, INPUT | {"price": "7.00"})
    assert await publisher(api).publish_next() is not None
    assert await publisher(api).publish_next() is None
    assert (await newest(api))["prices"][0]["price"] == "7.00"
    assert (await newest(api, provider="two"))["prices"] == [INPUT, OUTPUT]
    assert len((await api.get("/prices/scheduled"))["data"]) == 1


async def test_terms_are_list_prices_until_an_operator_writes_others(api: Api, tenant: Account) -> None:
    path = f"{tenant.org}/terms"
    got = await tenant.api.get(path)
    assert got.document == {"revision": 0, "org_id": tenant.org_id, "markup_percent": "0", "overrides": []}
    override = {"model": "m", "provider": None, "meter": "input", "unit": "1M tokens", "price": "0.10"}
    named = override | {"provider": "two", "unit": "1K tokens", "price": "0.50"}
    made = await put(api, path, {"markup_percent": "-12.5", "overrides": [named, override]}, etag=0)
    assert (made.status, made["action"], made["target"]) == (202, "terms.put", tenant.org_id)
    got = await tenant.api.get(path)
    assert got.document == {
        "revision": made["revision"],
        "org_id": tenant.org_id,
        "markup_percent": "-12.5",
        "overrides": [override, named],
    }
    assert got.headers["ETag"] == made.headers["ETag"]
    assert (await put(api, path, {}, etag=0)).status == 412
    assert (await put(api, path, {})).status == 428
    assert (await put(api, path, {}, etag=made["revision"])).status == 202
    assert (await tenant.api.get(path))["markup_percent"] == "0"
    actions = [each["action"] for each in (await tenant.api.get(f"{tenant.org}/audit"))["data"]]
    assert actions[:2] == ["terms.put", "terms.put"]


async def test_an_organisation_cannot_change_its_own_terms_and_does_not_see_those_of_others(
    api: Api, tenant: Account
) -> None:
    other = await api.as_(None).sign_up("other@example.com")
    assert (await put(tenant.api, f"{tenant.org}/terms", {"markup_percent": "-100"})).status == 403
    assert (await put(tenant.api, f"{other.org}/terms", {"markup_percent": "100"})).status == 404
    assert (await tenant.api.get(f"{other.org}/terms")).status == 404
    assert (await put(api, "/orgs/org_none/terms", {})).status == 404


@pytest.mark.parametrize(
    ("override", "pointers"),
    [
        ({"model": "unknown"}, ["/overrides/1/model"]),
        ({"provider": "three"}, ["/overrides/1/provider"]),
        ({}, ["/overrides/1"]),
        ({"unit": "request"}, ["/overrides/1/unit"]),
    ],
)
async def test_terms_name_what_is_there_and_each_thing_once(
    api: Api, tenant: Account, override: dict[str, Any], pointers: list[str]
) -> None:
    first = {"model": "m", "provider": None, "meter": "input", "unit": "1M tokens", "price": "1"}
    reply = await put(api, f"{tenant.org}/terms", {"overrides": [first, first | override]})
    assert (reply.status, reply.pointers) == (422, pointers)


async def test_a_request_is_charged_by_the_prices_and_terms_of_the_revision_it_was_admitted_at(
    api: Api, tenant: Account
) -> None:
    path = f"{tenant.org}/terms"
    override = {"model": "m", "provider": None, "meter": "output", "unit": "1K tokens", "price": "0.002"}
    admitted = [await add(api, INPUT, OUTPUT)]
    admitted.append(int((await put(api, path, {"markup_percent": "50"}))["revision"]))
    terms = {"markup_percent": "50", "overrides": [override]}
    admitted.append(int((await put(api, path, terms, etag="*"))["revision"]))
    admitted.append(await add(api, INPUT | {"price": "0.40"}, OUTPUT))
    admitted.append(int((await put(api, path, {}, etag="*"))["revision"]))
    # 0.2 and 1 millionths of a dollar per token of input and output; then half as much again; then output at 2 millionths; ...
    expected = [1_200_000, 1_800_000, 2_300_000, 2_600_000, 1_400_000]
    prices = await book(api.pool)
    assert [charged(prices, tenant.org_id, version) for version in admitted] == expected
    assert [charged(prices, "org_other", version) for version in admitted] == [1_200_000] * 3 + [1_400_000] * 2
    # Read in pieces, it is the same book.
    pieces = PriceBook.of(PriceVersion(0), ())
    early = await book(api.pool)
    assert await PostgresPrices(api.pool).read(pieces) == early
    await add(api, INPUT, OUTPUT, provider="two")
    assert await PostgresPrices(api.pool).read(early) == await book(api.pool)


async def test_admission_holds_at_the_organisations_terms_of_the_same_reading(api: Api, tenant: Account) -> None:
    await add(api, INPUT, OUTPUT, LONG)
    assert (await put(api, "/routes/m", {"match": "m", "groups": [[{"provider": "one"}]]})).status == 202
    override = {"model": "m", "provider": "one", "meter": "output", "unit": "token", "price": "0.5"}
    made = await put(api, f"{tenant.org}/terms", {"markup_percent": "10", "overrides": [override]})
    offers = (await PostgresOffers.read(api.pool, utc_now, QUIET)).offers
    assert offers.version == made["revision"]
    terms = offers.terms(OrgId(tenant.org_id), ModelName("m"), ProviderName("one"))
    assert (terms.markup_ppm, terms.prices) == (100_000, {Meter.OUTPUT: 500_000_000_000_000})
    [deployment] = offers.by_model[ModelName("m")].prices[Endpoint.CHAT]
    assert [tier.input_tokens_above for tier in deployment.price.tiers] == [1000]


async def test_a_version_with_a_condition_from_the_future_is_not_offered_and_the_sink_keeps_what_ran_under_it(
    api: Api, tenant: Account
) -> None:
    await add(api, INPUT, OUTPUT)
    await add(api, INPUT, OUTPUT, model="n")
    for model in ("m", "n"):
        groups = [[{"provider": "one"}]]
        assert (await put(api, f"/routes/{model}", {"match": model, "groups": groups})).status == 202
    version = await api.pool.fetchval(
        """
        INSERT INTO catalog.prices (model, provider, meter, condition, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
        VALUES ('m', 'one', 'input', '{"weekday": "sunday"}', 1, 1) RETURNING revision
        """
    )
    assert set((await PostgresOffers.read(api.pool, utc_now, QUIET)).offers.by_model) == {"n"}
    prices = await book(api.pool)
    with pytest.raises(LookupError, match=f"price version {version}"):
        charged(prices, tenant.org_id, version)
    assert charged(prices, tenant.org_id, version - 1) > 0


async def test_what_is_written_down_about_money_stays_as_it_is(api: Api, tenant: Account) -> None:
    await add(api, INPUT)
    override = {"model": "m", "provider": None, "meter": "input", "unit": "1M tokens", "price": "1"}
    assert (await put(api, f"{tenant.org}/terms", {"overrides": [override]})).status == 202
    for table in ("prices", "terms", "term_prices"):
        for statement in (f"DELETE FROM catalog.{table}", f"UPDATE catalog.{table} SET revision = 1"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                await api.pool.execute(statement)
