"""Webhooks as their organisation manages them, through the API on a real Postgres."""

import asyncpg
import pytest

from control_plane.webhooks.model import WEBHOOKS_MAX
from control_plane.webhooks.postgres_events import KEPT, forget_old_events
from gateway_core.clock import utc_now
from tests.support.api import Account, Api, running_api
from tests.support.webhooks import deliveries, give, hook

URL = "https://hooks.example.com/tollgate"


async def test_a_webhook_is_made_changed_with_its_etag_and_removed(owner: Account) -> None:
    made = await hook(owner, URL)
    path = f"{owner.org}/webhooks/{made['id']}"
    assert (made["enabled"], made["event_types"], made["revision"]) == (True, [], 1)
    read = await owner.api.get(path)
    assert read.document == {name: value for name, value in made.items() if name != "secret"}
    assert (await owner.api.call("PATCH", path, {"enabled": False})).status == 428
    changed = await owner.api.patch(path, {"event_types": ["topup.paid", "topup.paid"]}, match=1)
    assert (changed["url"], changed["event_types"], changed.headers["ETag"]) == (URL, ["topup.paid"], '"2"')
    assert (await owner.api.patch(path, {"enabled": False}, match=1)).status == 412
    assert [each["id"] for each in (await owner.api.get(f"{owner.org}/webhooks"))["data"]] == [made["id"]]
    assert (await owner.api.delete(path)).status == 204
    assert (await owner.api.get(path)).status == 404
    actions = [each["action"] for each in (await owner.api.get(f"{owner.org}/audit"))["data"]]
    assert actions[:3] == ["webhook.delete", "webhook.change", "webhook.create"]


async def test_a_secret_is_shown_once_and_stands_nowhere_in_the_clear(api: Api, owner: Account) -> None:
    made = await hook(owner, URL)
    path = f"{owner.org}/webhooks/{made['id']}"
    rotated = await owner.api.post(f"{path}/rotate", {})
    assert rotated["previous_secret_until"] is not None
    shown = [(await owner.api.get(each)).text for each in (path, f"{owner.org}/webhooks", f"{owner.org}/audit")]
    rows = await api.pool.fetch("SELECT w::text AS row, sealed_secret, sealed_secret_before FROM payments.webhooks w")
    for secret in (made["secret"], rotated["secret"]):
        assert secret.startswith("whsec_")
        assert secret not in "".join([*shown, rows[0]["row"]])
        assert secret.encode() not in rows[0]["sealed_secret"] + rows[0]["sealed_secret_before"]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://hooks.example.com/",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://localhost/",
        ),
        *("https://169.254.169.254/latest", "https://metadata.google.internal/", "https://[::ffff:169.254.169.254]/"),
        *("https://2130706433/", "https://0x7f.1/", "https://u:p@example.com/", "ftp://example.com/", "/hook", "x"),
        *("https://example.com/#f", "https://example.com/?a b", "https://example.com/?a#b", "https://intern/"),
    ],
)
async def test_a_url_of_where_no_webhook_may_be_is_refused(owner: Account, url: str) -> None:
    refused = await owner.api.post(f"{owner.org}/webhooks", {"url": url})
    assert (refused.status, refused.pointers) == (422, ["/url"])
    made = await hook(owner, URL)
    changed = await owner.api.patch(f"{owner.org}/webhooks/{made['id']}", {"url": url})
    assert (changed.status, changed.pointers) == (422, ["/url"])


async def test_what_is_private_is_allowed_by_the_setting_and_metadata_never(pool: asyncpg.Pool) -> None:
    async with running_api(pool, private_webhooks_allowed=True) as api:
        owner = await api.sign_up("owner@example.com")
        await hook(owner, "http://127.0.0.1:8000/hook?key=a%20b&x=1")
        refused = await owner.api.post(f"{owner.org}/webhooks", {"url": "http://169.254.169.254/"})
        assert refused.status == 422


async def test_a_webhook_is_told_what_it_wants_while_it_is_enabled(api: Api, owner: Account) -> None:
    everything, credits_only, topups_only, off = [
        await hook(owner, URL, **changes)
        for changes in ({}, {"event_types": ["credit.created"]}, {"event_types": ["topup.paid"]}, {"enabled": False})
    ]
    other = await hook(await api.sign_up("other@example.com"), URL)
    await give(api, owner)
    told = [[each["event_type"] for each in await deliveries(owner, one)] for one in (everything, credits_only)]
    assert told == [["credit.created"], ["credit.created"]]
    assert await deliveries(owner, topups_only) == await deliveries(owner, off) == []
    assert (await owner.api.get(f"{owner.org}/webhooks/{other['id']}/deliveries")).status == 404
    # One thing has happened, whoever is told.
    [event] = {each["event_id"] for one in (everything, credits_only) for each in await deliveries(owner, one)}
    assert event == await api.pool.fetchval("SELECT event_id FROM payments.webhook_events")


async def test_what_did_not_happen_is_not_told(api: Api, owner: Account) -> None:
    await hook(owner, URL)
    operator = api.as_(await api.operator_token())
    body = {"amount": "1", "currency": "USD", "reason": "gift"}
    assert (await operator.post(f"{owner.org}/credits", body, params={"dry_run": "true"})).status == 201
    assert (await operator.post(f"{owner.org}/credits", body | {"amount": "-5"})).status == 409
    assert await api.pool.fetchval("SELECT count(*) FROM payments.webhook_events") == 0


async def test_what_waits_fails_when_its_webhook_is_disabled_and_can_be_replayed(api: Api, owner: Account) -> None:
    made = await hook(owner, URL)
    path = f"{owner.org}/webhooks/{made['id']}"
    await give(api, owner)
    [waiting] = await deliveries(owner, made)
    replay = f"{path}/deliveries/{waiting['id']}/replay"
    assert (waiting["state"], (await owner.api.post(replay)).status) == ("waiting", 409)
    await owner.api.patch(path, {"enabled": False})
    [failed] = await deliveries(owner, made)
    assert (failed["state"], failed["last_fault"], failed["next_attempt_at"]) == ("failed", "disabled", None)
    assert [(await owner.api.post(each)).status for each in (replay, f"{path}/test")] == [409, 409]
    await owner.api.patch(path, {"enabled": True})
    replayed = await owner.api.post(replay)
    assert (replayed.status, replayed["state"], replayed["event_id"]) == (200, "waiting", waiting["event_id"])
    assert (await owner.api.post(f"{path}/deliveries/del_0/replay")).status == 404


async def test_one_test_at_a_time_and_so_many_webhooks(owner: Account) -> None:
    made = await hook(owner, URL, event_types=["topup.paid"])
    test = f"{owner.org}/webhooks/{made['id']}/test"
    first = await owner.api.post(test)
    assert (first.status, first["event_type"], first["state"]) == (201, "webhook.test", "waiting")
    assert (await owner.api.post(test)).status == 409
    for _ in range(WEBHOOKS_MAX - 1):
        await hook(owner, URL)
    refused = await owner.api.post(f"{owner.org}/webhooks", {"url": URL})
    assert (refused.status, refused["code"]) == (409, "conflict")


async def test_deliveries_come_in_pages_and_are_kept_for_thirty_days(api: Api, owner: Account) -> None:
    made = await hook(owner, URL)
    for _ in range(3):
        await give(api, owner)
    path = f"{owner.org}/webhooks/{made['id']}/deliveries"
    first = await owner.api.get(path, params={"limit": "2"})
    second = await owner.api.get(path, params={"limit": "2", "cursor": first["next_cursor"]})
    assert [len(first["data"]), len(second["data"]), second["next_cursor"]] == [2, 1, None]
    assert first["data"][0]["created_at"] > second["data"][0]["created_at"]
    await forget_old_events(api.pool, utc_now())
    assert len(await deliveries(owner, made)) == 3
    await forget_old_events(api.pool, utc_now() + KEPT)
    assert await deliveries(owner, made) == []
