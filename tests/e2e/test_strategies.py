"""Which provider a request goes to: in turn, kept by a value, the cheapest, the fastest; and that everybody is told why."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from control_plane.xds.routes import ROUTE_CONFIG
from tests.support.stack import Stack, add_model, add_provider, eventually

TRIAL_EVERY = 20


async def add_shared_model(
    stack: Stack, name: str, providers: Mapping[str, int], *, strategy: str, sticky_by: str | None = None
) -> None:
    """A model whose providers are all in one group, with their weights: `<name>-<provider>`."""
    for provider in providers:
        await add_provider(stack, f"{name}-{provider}", f"{stack.simulator_url}/v1", f"{name}-secret")
    await add_model(
        stack, name, [(f"{name}-{provider}", f"upstream-{provider}") for provider in providers], in_one_group=True
    )
    async with stack.database() as connection, connection.transaction():
        await connection.executemany(
            "UPDATE catalog.route_members SET weight = $3 WHERE route = $1 AND provider = $2",
            [(name, f"{name}-{provider}", weight) for provider, weight in providers.items()],
        )
        await connection.execute(
            "UPDATE catalog.routes SET strategy = $2, sticky_by = $3 WHERE name = $1", name, strategy, sticky_by
        )
    expected = {
        "choice": None if strategy == "weighted" and sticky_by is None else strategy,
        "sticky_by": sticky_by,
        "weights": {f"provider/{name}-{provider}={weight}" for provider, weight in providers.items()}
        if len(providers) > 1 and strategy != "lowest_cost"
        else set(),
    }

    async def is_told() -> bool:
        return await told(stack, f"chat:{name}") == expected

    await eventually(is_told, deadline_s=40)


async def told(stack: Stack, route: str) -> dict[str, Any] | None:
    """What Envoy's front filter is told of the choice on a route."""
    url = f"{stack.endpoints['envoy_admin_url']}/config_dump?resource=dynamic_route_configs"
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        for configuration in (await got.json())["configs"]:
            if configuration["route_config"]["name"] != ROUTE_CONFIG:
                continue
            [host] = configuration["route_config"]["virtual_hosts"]
            action = host["matcher"]["matcher_tree"]["exact_match_map"]["map"].get(route)
            if action is not None:
                front = action["action"]["typed_config"]["metadata"]["filter_metadata"]["tollgate.front"]
                weights = set(front.get("members", "").split())
                return {"choice": front.get("choice"), "sticky_by": front.get("sticky_by"), "weights": weights}
    return None


async def turn(stack: Stack, provider: str, knobs: str) -> None:
    """Have a provider behave as the simulator's knobs say, from now on."""
    async with stack.database() as connection:
        await connection.execute(
            "UPDATE catalog.providers SET headers = $2 WHERE name = $1", provider, json.dumps({"x-simulator": knobs})
        )

    async def is_told() -> bool:
        url = f"{stack.endpoints['envoy_admin_url']}/config_dump?resource=dynamic_active_clusters"
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            return any(
                knobs in json.dumps(each) for each in (await got.json())["configs"] if provider in json.dumps(each)
            )

    await eventually(is_told)


async def ask(session: aiohttp.ClientSession, model: str, **fields: object) -> str:
    """One chat; returns its request id."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], **fields}
    path = "/v1/messages" if "metadata" in fields else "/v1/chat/completions"
    async with session.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        return response.headers["x-request-id"]


async def served(stack: Stack, request_ids: list[str]) -> list[tuple[str, str]]:
    """The provider of each request, and why it was that one."""
    rows = [await stack.request_row(request_id) for request_id in request_ids]
    return [(row["provider"].rpartition("-")[2], row["choice"]) for row in rows]


async def api(stack: Stack, method: str, path: str, body: object = None) -> Any:
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with (
        aiohttp.ClientSession(headers=operator, raise_for_status=True) as session,
        session.request(method, f"{stack.endpoints['control_plane_url']}/api/v1{path}", json=body) as got,
    ):
        return await got.json()


def gateway(stack: Stack) -> aiohttp.ClientSession:
    """A client with one connection, so that one worker serves all of it."""
    return aiohttp.ClientSession(stack.url, headers=stack.headers, connector=aiohttp.TCPConnector(limit=1))


async def test_providers_take_turns_exactly_by_their_weights(stack: Stack) -> None:
    await add_shared_model(stack, "even", {"a": 1, "b": 1, "c": 1}, strategy="round_robin")
    await add_shared_model(stack, "uneven", {"a": 3, "b": 1}, strategy="round_robin")
    async with gateway(stack) as session:
        # What others do in between does not disturb whose turn it is.
        found = [(await ask(session, "even"), await ask(session, "uneven")) for _ in range(24)]
    even = await served(stack, [each for each, _ in found])
    assert Counter(even) == {("a", "round_robin"): 8, ("b", "round_robin"): 8, ("c", "round_robin"): 8}
    assert [each for each, _ in even[:6]] == ["a", "b", "c"] * 2
    uneven = [each for each, _ in await served(stack, [each for _, each in found])]
    assert Counter(uneven) == {"a": 18, "b": 6}
    assert all(Counter(uneven[at : at + 4]) == {"a": 3, "b": 1} for at in range(0, 24, 4))


async def test_a_member_that_fails_is_followed_by_the_others_of_its_group(stack: Stack) -> None:
    await add_shared_model(stack, "limping", {"a": 1, "b": 1}, strategy="round_robin")
    await turn(stack, "limping-a", "error=500")
    await turn(stack, "limping-b", "latency_ms=0")
    async with gateway(stack) as session:
        request_ids = [await ask(session, "limping") for _ in range(8)]
    assert await served(stack, request_ids) == [("b", "round_robin")] * 8
    attempts = [(await stack.request_row(request_id))["attempts"] for request_id in request_ids]
    assert Counter(attempts) == {1: 4, 2: 4}
    await stack.clickhouse_attempt(request_ids[attempts.index(2)])
    shown = await api(stack, "GET", f"/requests/{request_ids[attempts.index(2)]}")
    assert shown["choice"] == "round_robin"
    assert [each["provider"] for each in shown["attempts"]] == ["limping-a", "limping-b"]
    assert (await stack.clickhouse_row(request_ids[0]))["choice"] == "round_robin"


@pytest.mark.parametrize(
    ("sticky_by", "fields"),
    [
        ("user", lambda value: {"user": value}),
        ("user", lambda value: {"safety_identifier": value, "user": "somebody else"}),
        ("user", lambda value: {"metadata": {"user_id": value}}),
        ("prompt_cache_key", lambda value: {"prompt_cache_key": value}),
    ],
    ids=["user", "safety_identifier", "metadata", "prompt_cache_key"],
)
async def test_requests_with_one_value_go_to_one_provider_and_explain_knows_which(
    stack: Stack, request: pytest.FixtureRequest, sticky_by: str, fields: Any
) -> None:
    name = f"sticky-{request.node.callspec.id.replace('_', '-')}"
    await add_shared_model(stack, name, {"a": 1, "b": 1, "c": 1}, strategy="weighted", sticky_by=sticky_by)
    values = [f"value-{number}" for number in range(12)]
    async with gateway(stack) as one, gateway(stack) as another:
        found = [[await ask(each, name, **fields(value)) for value in values] for each in (one, another)]
    first, second = [await served(stack, request_ids) for request_ids in found]
    assert first == second
    assert {choice for _, choice in first} == {"sticky"}
    assert len({provider for provider, _ in first}) == 3
    endpoint = "messages" if "metadata" in fields("") else "chat"
    for value, (provider, _) in zip(values, first, strict=True):
        told = await api(stack, "POST", "/routes/explain", {"endpoint": endpoint, "model": name, "sticky_value": value})
        [group] = told["groups"]
        assert told["choice"] == "sticky"
        assert [each["provider"] for each in group["members"] if each["position"] == 1] == [f"{name}-{provider}"]


async def test_when_a_provider_leaves_nobody_moves_but_who_was_there_and_without_a_value_the_weights_count(
    stack: Stack,
) -> None:
    await add_shared_model(stack, "leaving", {"a": 1, "b": 1, "c": 1}, strategy="weighted", sticky_by="user")
    values = [f"value-{number}" for number in range(30)]
    async with gateway(stack) as session:
        before = await served(stack, [await ask(session, "leaving", user=value) for value in values])
        without = await served(stack, [await ask(session, "leaving") for _ in range(6)])
        unusable = await served(stack, [await ask(session, "leaving", user=each) for each in (None, "", 7)])
        async with stack.database() as connection:
            await connection.execute("DELETE FROM catalog.route_members WHERE provider = 'leaving-b'")

        async def has_left() -> bool:
            url = f"{stack.endpoints['envoy_admin_url']}/config_dump?resource=dynamic_route_configs"
            async with aiohttp.ClientSession() as admin, admin.get(url) as got:
                # In what a route stands for; what the provider keeps is still asked of it.
                return "leaving-b=" not in await got.text()

        await eventually(has_left)
        after = await served(stack, [await ask(session, "leaving", user=value) for value in values])
    assert Counter(without) == {("a", "weighted"): 2, ("b", "weighted"): 2, ("c", "weighted"): 2}
    assert {choice for _, choice in unusable} == {"weighted"}
    moved = [(was, now) for (was, _), (now, _) in zip(before, after, strict=True) if was != now]
    assert {was for was, _ in moved} == {"b"}
    assert len(moved) == sum(was == "b" for was, _ in before) > 0


async def test_the_cheapest_provider_is_first_and_a_new_price_changes_that(stack: Stack) -> None:
    await add_shared_model(stack, "cheap", {"a": 1, "b": 1}, strategy="lowest_cost")

    async def price(provider: str, output: int) -> None:
        async with stack.database() as connection:
            await connection.execute(
                """
                INSERT INTO catalog.prices (model, provider, meter, unit, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
                SELECT model, provider, meter, unit, CASE meter WHEN 'output' THEN $2 ELSE cost_nano_usd_per_mtok END,
                       price_nano_usd_per_mtok + 1000000
                FROM (SELECT DISTINCT ON (meter) * FROM catalog.prices WHERE model = 'cheap' AND provider = $1
                      ORDER BY meter, revision DESC) p
                """,
                f"cheap-{provider}",
                output,
            )

    async def first_is(provider: str) -> bool:
        async with gateway(stack) as session:
            return await served(stack, [await ask(session, "cheap")]) == [(provider, "lowest_cost")]

    await price("a", 2_000_000)
    await eventually(lambda: first_is("b"))
    executions = await stack.envoy_stats("^cluster.provider/cheap-b.lua.executions")
    assert await first_is("b")
    # It is certain, so the front filter has prepared it.
    assert await stack.envoy_stats("^cluster.provider/cheap-b.lua.executions") == executions
    told = await api(stack, "POST", "/routes/explain", {"endpoint": "chat", "model": "cheap"})
    members = {each["provider"]: each for each in told["groups"][0]["members"]}
    assert (told["strategy"], told["choice"]) == ("lowest_cost", "lowest_cost")
    assert [members[f"cheap-{each}"]["position"] for each in "ab"] == [2, 1]
    assert [members[f"cheap-{each}"]["nominal_cost"] for each in "ab"] == ["0.000005", "0.000004"]
    await price("b", 9_000_000)
    await eventually(lambda: first_is("a"))


async def test_the_fastest_provider_is_first_also_when_a_slow_one_becomes_fast(stack: Stack) -> None:
    await add_shared_model(stack, "fast", {"a": 2, "b": 1}, strategy="lowest_latency")
    await turn(stack, "fast-a", "latency_ms=150")
    await turn(stack, "fast-b", "latency_ms=20")

    async def some(session: aiohttp.ClientSession) -> Counter[tuple[str, str]]:
        return Counter(await served(stack, [await ask(session, "fast") for _ in range(TRIAL_EVERY)]))

    async with gateway(stack) as session:
        # Nothing is known yet: the heaviest first, and one trial.
        assert await some(session) == {("a", "lowest_latency"): TRIAL_EVERY - 1, ("b", "trial"): 1}

        async def prefers(provider: str, other: str) -> bool:
            return await some(session) == {(provider, "lowest_latency"): TRIAL_EVERY - 1, (other, "trial"): 1}

        await eventually(lambda: prefers("b", "a"), deadline_s=40)
        told = await api(stack, "POST", "/routes/explain", {"endpoint": "chat", "model": "fast"})
        speeds = {each["provider"]: each["first_byte_ms"] for each in told["groups"][0]["members"]}
        assert 150 <= speeds["fast-a"] < 400
        assert 20 <= speeds["fast-b"] < 100
        await turn(stack, "fast-a", "latency_ms=1")
        await turn(stack, "fast-b", "latency_ms=300")
        await eventually(lambda: prefers("a", "b"), deadline_s=60)


async def test_no_script_failed(stack: Stack) -> None:
    errors = await stack.envoy_stats("lua.errors")
    assert errors
    assert not any(errors.values()), errors


async def test_a_provider_that_is_alone_is_asked_again_when_it_says_so_and_one_that_is_not_is_left_at_once(
    stack: Stack,
) -> None:
    """The simulator's 429 says that it is over in a second."""
    await add_shared_model(stack, "alone", {"a": 1}, strategy="weighted")
    await turn(stack, "alone-a", "error=429")
    await add_shared_model(stack, "beside", {"a": 1, "b": 1}, strategy="round_robin")
    await turn(stack, "beside-a", "error=429")
    await turn(stack, "beside-b", "latency_ms=0")
    async with gateway(stack) as session:
        request_ids: list[str] = []
        for model, status in (("alone", 429), ("beside", 200), ("beside", 200)):
            body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == status
                request_ids.append(response.headers["x-request-id"])
    alone, *beside = [await stack.request_row(request_id) for request_id in request_ids]
    assert (alone["attempts"], 1000 <= alone["duration_ms"] < 3000) == (2, True)
    assert sorted(each["attempts"] for each in beside) == [1, 2]
    assert max(each["duration_ms"] for each in beside) < 900
