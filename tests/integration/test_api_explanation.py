"""Where a request would go, as an operator is told it, and that Envoy is told the same."""

import secrets
from typing import Any

import pytest

from control_plane.catalog.postgres_store import read_catalog
from control_plane.sealing import Seal
from control_plane.xds.routes import provider_routes
from tests.support.api import KEY, Api, Reply
from tests.support.catalog_api import MODEL, PROVIDER, add_price, put, serve
from tests.support.logs import QUIET


@pytest.fixture
async def operator(api: Api) -> Api:
    return api.as_(await api.operator_token())


async def explained(operator: Api, model: str, **more: object) -> Reply:
    reply = await operator.post("/routes/explain", {"endpoint": "chat", "model": model, **more})
    assert reply.status == 200, reply.text
    return reply


def members(reply: Reply) -> list[list[tuple[Any, ...]]]:
    return [
        [(each["provider"], each["share_percent"], each["skipped_because"]) for each in group["members"]]
        for group in reply["groups"]
    ]


async def a_chain(operator: Api, model: str = "m", **route: object) -> None:
    """`one` and `two` share, `claude` is behind them and does not serve chats, `bare` is not deployed, `last` is last."""
    await serve(operator, model, "one")
    for name in ("two", "bare", "last", "unpriced"):
        assert (await put(operator, f"/providers/{name}", PROVIDER)).status == 202
    anthropic = {"kind": "anthropic", "base_url": "https://anthropic.example.com/v1"}
    assert (await put(operator, "/providers/claude", anthropic)).status == 202
    for name in ("two", "claude", "last"):
        assert (await put(operator, f"/deployments/{model}/{name}", {"upstream_model": f"{name}-m"})).status == 202
        await add_price(operator.pool, model, name)
    groups = [
        [{"provider": "one", "weight": 3}, {"provider": "two", "weight": 1}],
        [{"provider": "claude"}],
        [{"provider": "last"}],
    ]
    reply = await put(operator, f"/routes/{model}", {"match": model, "groups": groups, **route}, etag="*")
    assert reply.status == 202, reply.text


async def test_groups_come_in_the_order_they_are_tried_with_the_share_of_each_provider_and_why_one_is_skipped(
    operator: Api,
) -> None:
    await a_chain(operator)
    found = await explained(operator, "m")
    assert (found["is_served"], found["refused_because"], found["route"], found["named_by"]) == (
        True,
        None,
        "m",
        "name",
    )
    assert members(found) == [
        [("one", 75.0, None), ("two", 25.0, None)],
        [("claude", None, "its kind does not serve the endpoint")],
        [("last", 100.0, None)],
    ]
    assert [each["upstream_model"] for each in found["groups"][0]["members"]] == ["up", "two-m"]
    assert found["groups"][0]["members"][0]["path"] == "/v1/chat/completions"
    # Prices of these tests are 1 nano-USD for a million tokens of input.
    assert (found["hold"]["amount"], found["hold"]["input_tokens"]) == ("0.000000001", 1000)


async def test_it_says_what_envoy_is_told(operator: Api) -> None:
    await a_chain(operator)
    catalog = await read_catalog(operator.pool, Seal(KEY, secrets.token_bytes), QUIET)
    for route in provider_routes(catalog, translated=False):
        found = await explained(operator, route.name, endpoint=route.endpoint)
        tried = [
            [(m["provider"], m["upstream_model"], m["path"]) for m in group["members"] if m["skipped_because"] is None]
            for group in found["groups"]
        ]
        assert [group for group in tried if group] == [
            [(hop.provider, hop.upstream_model, hop.path) for hop in group] for group in route.groups
        ]


async def test_groups_behind_the_last_attempt_are_not_tried(operator: Api) -> None:
    await a_chain(operator, attempts_max=1)
    found = await explained(operator, "m")
    assert found["attempts_max"] == 1
    assert members(found)[2] == [("last", None, "the route makes no more attempts")]


async def test_a_provider_that_cannot_be_used_is_skipped_with_the_reason(operator: Api) -> None:
    await a_chain(operator)
    await operator.pool.execute(
        """
        INSERT INTO catalog.route_members (route, provider, priority, weight) VALUES ('m', 'bare', 3, 1), ('m', 'unpriced', 4, 1);
        INSERT INTO catalog.deployments (model, provider, upstream_model) VALUES ('m', 'unpriced', 'x');
        UPDATE catalog.providers SET credential = '\\x00' WHERE name = 'last';
        """
    )
    assert members(await explained(operator, "m"))[2:] == [
        [("last", None, "it cannot be asked: its credential is missing or cannot be read, or its address is none")],
        [("bare", None, "the model is not deployed there")],
        [("unpriced", None, "the model has no price there")],
    ]


async def test_a_route_that_names_the_model_comes_before_a_pattern_and_the_longer_pattern_before_the_shorter(
    operator: Api,
) -> None:
    await serve(operator, "gpt-mini")
    groups = [[{"provider": "one"}]]
    for name, match in (("short", "g*"), ("long", "gpt-*"), ("other", "claude-*")):
        assert (await put(operator, f"/routes/{name}", {"match": match, "groups": groups})).status == 202
    found = await explained(operator, "gpt-mini")
    assert [(each["name"], each["matched_by"], each["passed_over_because"]) for each in found["routes"]] == [
        ("gpt-mini", "name", None),
        ("long", "pattern", "a route that names the model comes before a pattern"),
        ("short", "pattern", "a route that names the model comes before a pattern"),
    ]
    hidden = {"match": "gpt-mini", "groups": groups, "published": False}
    assert (await put(operator, "/routes/gpt-mini", hidden, etag="*")).status == 202
    found = await explained(operator, "gpt-mini")
    assert [(each["name"], each["passed_over_because"]) for each in found["routes"]] == [
        ("gpt-mini", "it is not published"),
        ("long", None),
        ("short", "a longer pattern comes before a shorter one"),
    ]
    assert found["route"] == "long"


async def test_what_is_not_served_says_why(api: Api, operator: Api) -> None:
    mine, theirs = await api.sign_up("me@example.com"), await api.sign_up("them@example.com")
    await a_chain(operator, orgs_allowed=[mine.org_id])
    assert (await put(operator, "/models/alone", {**MODEL, "aliases": ["lonely"]})).status == 202
    for model, more, reason in (
        ("nothing", {}, "no model has this name, nor is it an alias of one"),
        ("alone", {}, "no published route matches the model"),
        ("m", {"endpoint": "embeddings"}, "the model is not sold on this endpoint"),
        (
            "m",
            {"org_id": theirs.org_id},
            "the route is not for this organisation, to which it looks as if there were no such model",
        ),
        ("m", {"org_id": mine.org_id}, None),
    ):
        found = await explained(operator, model, **more)
        assert (found["is_served"], found["refused_because"]) == (reason is None, reason)
        assert (found["hold"] is None) == (reason is not None)
    assert ((await explained(operator, "lonely"))["model"], (await explained(operator, "lonely"))["named_by"]) == (
        "alone",
        "alias",
    )
    refused = await operator.post("/routes/explain", {"endpoint": "models", "model": "m"})
    assert (refused.status, refused.pointers) == (422, ["/endpoint"])


async def test_a_strategy_says_who_is_first_by_what_and_who_a_value_is_kept_to(operator: Api) -> None:
    await a_chain(operator)
    groups = [[{"provider": "one"}, {"provider": "two"}], [{"provider": "last"}]]

    async def as_told(question: dict[str, object], **route: object) -> tuple[object, object, list[tuple[Any, ...]]]:
        body = {"match": "m", "groups": groups, **route}
        assert (await put(operator, "/routes/m", body, etag="*")).status == 202
        stored = await operator.get("/routes/m")
        assert {name: stored[name] for name in route} == route
        found = await explained(operator, "m", **question)
        shown = [(m["provider"], m["share_percent"], m["position"]) for g in found["groups"] for m in g["members"]]
        return found["strategy"], found["choice"], shown

    await operator.pool.execute("UPDATE catalog.models SET endpoints = '{chat}' WHERE name = 'm'")
    assert await as_told({}, strategy="round_robin") == (
        *("round_robin", "round_robin"),
        [("one", 50.0, None), ("two", 50.0, None), ("last", 100.0, None)],
    )
    await operator.pool.execute(
        "INSERT INTO catalog.prices VALUES ('m', 'one', 0, 'input', 9000000, 9000000), ('m', 'two', 0, 'input', 7000000, 9000000)"
    )
    assert await as_told({}, strategy="lowest_cost") == (
        *("lowest_cost", "lowest_cost"),
        [("one", 0.0, 2), ("two", 100.0, 1), ("last", 100.0, 3)],
    )
    costs = [each["nominal_cost"] for each in (await explained(operator, "m"))["groups"][0]["members"]]
    assert costs == ["0.000027", "0.000021"]
    await operator.pool.execute("INSERT INTO catalog.first_bytes VALUES ('m', 'two', 40, 41, now())")
    assert await as_told({}, strategy="lowest_latency", attempts_max=2) == (
        *("lowest_latency", "lowest_latency"),
        [("one", 5.0, 2), ("two", 95.0, 1), ("last", None, None)],
    )
    speeds = [each["first_byte_ms"] for each in (await explained(operator, "m"))["groups"][0]["members"]]
    assert speeds == [None, 41]
    strategy, choice, shown = await as_told({"sticky_value": "ada"}, strategy="weighted", sticky_by="user")
    assert (strategy, choice) == ("weighted", "sticky")
    assert {(share, position) for _, share, position in shown[:2]} == {(100.0, 1), (0.0, 2)}
    assert shown[2] == ("last", 100.0, 3)
    assert (await explained(operator, "m"))["choice"] == "weighted"
    refused = await put(
        *(operator, "/routes/m"),
        {"match": "m", "groups": groups, "strategy": "lowest_cost", "sticky_by": "user"},
        etag="*",
    )
    assert (refused.status, refused.pointers) == (422, ["/sticky_by"])
