"""Budgets through the API: set, changed, removed, and what is left of them."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing_sink.postgres_ledger import _row
from gateway_core.mode import Mode
from tests.support.api import Account, Api
from tests.support.ledger import FAR, posting

NO_BUDGET = {"budget_per_day_usd": None, "budget_per_month_usd": None}


async def spend(owner: Account, key: Any, request_id: str, price: int, *, mode: Mode = Mode.LIVE) -> None:
    """A request that is over."""
    row = {**_row(posting(request_id, price=price, mode=mode, key_id=key["id"])), "org_id": owner.org_id}
    settle = "SELECT billing.settle($1::jsonb, $2)"
    await owner.api.pool.execute(settle, json.dumps([row | {"project_id": key["project_id"]}]), owner.api.clock.now())


async def hold(owner: Account, key: Any, request_id: str, amount: int) -> None:
    """A request that is running."""
    await owner.api.pool.execute(
        "SELECT billing.place_hold($1, $2, $3, $4, $5, 'live', NULL, $6)",
        *(request_id, owner.org_id, key["id"], amount, FAR, key["project_id"]),
    )


async def test_a_project_has_budgets_which_can_be_changed_and_removed(owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/projects", {"name": "Second", "budget_per_month_usd": "20.5"})
    assert (made["budget_per_day_usd"], made["budget_per_month_usd"]) == (None, "20.50")
    path = f"{owner.org}/projects/{made['id']}"
    changed = await owner.api.patch(path, {"budget_per_day_usd": "0.000000001"}, match=1)
    assert (changed["budget_per_day_usd"], changed["budget_per_month_usd"]) == ("0.000000001", "20.50")
    renamed = await owner.api.patch(path, {"name": "Third", "budget_per_month_usd": None}, match=2)
    assert (renamed["budget_per_day_usd"], renamed["budget_per_month_usd"]) == ("0.000000001", None)
    wrong = await owner.api.patch(path, {"budget_per_day_usd": "-1", "budget_per_month_usd": 3})
    assert wrong.pointers == ["/budget_per_day_usd", "/budget_per_month_usd"]
    [default, listed] = (await owner.api.get(f"{owner.org}/projects"))["data"]
    assert {name: default[name] for name in NO_BUDGET} == NO_BUDGET
    assert listed == renamed.document
    [entry, *_] = (await owner.api.get(f"{owner.org}/audit"))["data"]
    assert (entry["before"]["budget_per_month_usd"], entry["after"]["budget_per_month_usd"]) == ("20.50", None)


async def test_every_budget_is_listed_with_what_is_spent_held_and_left_and_its_renewal(
    api: Api, owner: Account
) -> None:
    await api.pool.execute("SELECT billing.credit($1, 1000000000, 'test')", owner.org_id)
    await owner.api.patch(owner.org, {"time_zone": "Asia/Kathmandu"})
    assert (await owner.api.get(f"{owner.org}/budgets")).document == {"data": [], "next_cursor": None}
    await owner.api.patch(f"{owner.org}/projects/{owner.project_id}", {"budget_per_month_usd": "0.0000005"})
    budgets = {"budget_per_day_usd": "0.0000002", "budget_per_month_usd": "1"}
    key = await owner.api.post(f"{owner.org}/keys", {"name": "frugal", **budgets})
    other = await owner.api.post(f"{owner.org}/keys", {"name": "other"})
    revoked = await owner.api.post(f"{owner.org}/keys", {"name": "revoked", **budgets})
    await owner.api.delete(f"{owner.org}/keys/{revoked['id']}")
    await spend(owner, key, "r1", 90)
    await spend(owner, other, "r2", 40)
    await hold(owner, key, "r3", 70)

    answer = await owner.api.get(f"{owner.org}/budgets")
    shown = [(row["kind"], row["id"], row["name"], row["period"], row["currency"]) for row in answer["data"]]
    assert shown == [
        ("project", owner.project_id, "Default", "month", "USD"),
        ("key", key["id"], "frugal", "day", "USD"),
        ("key", key["id"], "frugal", "month", "USD"),
    ]
    amounts = [(row["limit"], row["spent"], row["held"], row["left"]) for row in answer["data"]]
    assert amounts == [
        ("0.0000005", "0.00000013", "0.00000007", "0.0000003"),
        ("0.0000002", "0.00000009", "0.00000007", "0.00000004"),
        ("1.00", "0.00000009", "0.00000007", "0.99999984"),
    ]
    project, day, month = (datetime.fromisoformat(row["renews_at"]) for row in answer["data"])
    assert project == month >= day
    assert api.clock.now() < day < api.clock.now() + timedelta(days=1, minutes=1)
    assert (day.hour, day.minute) == (18, 15)

    # Lowered below what is spent already, nothing is left; and the next day begins with all of it.
    await owner.api.patch(f"{owner.org}/keys/{key['id']}", {"budget_per_day_usd": "0.0000001"})
    [_, row, _] = (await owner.api.get(f"{owner.org}/budgets"))["data"]
    assert row["left"] == "0.00"
    operator = api.as_(await api.operator_token())
    api.clock.ahead = timedelta(days=1)
    [_, row, _] = (await operator.get(f"{owner.org}/budgets"))["data"]
    assert (row["spent"], row["held"], row["left"]) == ("0.00", "0.00000007", "0.00000003")


async def test_budgets_come_in_pages_and_those_of_test_keys_when_they_are_asked_for(owner: Account) -> None:
    budgets = {"budget_per_day_usd": "1", "budget_per_month_usd": "2"}
    await owner.api.patch(f"{owner.org}/projects/{owner.project_id}", budgets)
    live = [await owner.api.post(f"{owner.org}/keys", {"name": f"k{n}", **budgets}) for n in range(3)]
    test = await owner.api.post(f"{owner.org}/keys", {"name": "test", "mode": "test", **budgets})
    await spend(owner, test, "r1", 500_000_000, mode=Mode.TEST)
    expected = [
        (id_, period) for id_ in (owner.project_id, *(key["id"] for key in live)) for period in ("day", "month")
    ]
    found, query = [], "limit=3"
    while query:
        page = await owner.api.get(f"{owner.org}/budgets?{query}")
        found += [(row["id"], row["period"]) for row in page["data"]]
        query = page["next_cursor"] and f"limit=3&cursor={page['next_cursor']}"
    assert found == expected
    of_test = (await owner.api.get(f"{owner.org}/budgets?mode=test"))["data"]
    assert [(row["id"], row["spent"]) for row in of_test] == [
        *[(owner.project_id, "0.50")] * 2,
        *[(test["id"], "0.50")] * 2,
    ]


@pytest.mark.parametrize("query", ["mode=none", "limit=0", "cursor=x"])
async def test_a_list_of_budgets_refuses_what_it_does_not_know(owner: Account, query: str) -> None:
    assert (await owner.api.get(f"{owner.org}/budgets?{query}")).status == 422
