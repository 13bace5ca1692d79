"""Organisations, members, projects, keys and the audit log through the API, on a real Postgres."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from control_plane.accounts import postgres_api_keys
from control_plane.accounts.throttle import ORGS_PER_USER
from gateway_core.api_keys import hash_key, is_well_formed
from gateway_core.contract import Channel
from gateway_core.limits import Limits, Scope, ScopedLimits, Tally
from gateway_core.postgres_keys import PostgresKeys
from tests.support.api import PEPPER, Account, Api


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    assert made.status == 201
    assert made.headers["ETag"] == '"1"'
    assert is_well_formed(made["key"])
    assert made["project_id"] == owner.project_id
    assert made["key"].startswith(made["hint"])
    assert made["last_used_at"] is None
    for path in (f"{owner.org}/keys", f"{owner.org}/keys/{made['id']}", f"{owner.org}/audit"):
        assert made["key"] not in (await owner.api.get(path)).text
    found = await PostgresKeys(api.pool).find(hash_key(made["key"], PEPPER))
    assert found is not None
    assert found.is_valid(api.clock.now())
    row = await api.pool.fetchrow("SELECT * FROM accounts.api_keys WHERE key_id = $1", made["id"])
    assert made["key"] not in str(row)


async def test_everything_about_a_key_can_be_set_changed_and_taken_away(api: Api, owner: Account) -> None:
    settings = {
        "name": "full",
        "models_allowed": ["gpt-4o*", "claude-*"],
        "ip_allowed": ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"],
        "budget_per_day_usd": "1.50",
        "budget_per_month_usd": "20.000000001",
        "requests_per_minute_max": 60,
        "tokens_per_minute_max": 100000,
        "concurrency_max": 4,
        "expires_at": "2099-01-01T00:00:00Z",
    }
    made = await owner.api.post(f"{owner.org}/keys", settings)
    assert {name: made[name] for name in settings} == settings
    path = f"{owner.org}/keys/{made['id']}"
    changed = await owner.api.patch(path, {"name": "less", "budget_per_day_usd": None, "disabled": True}, match=1)
    assert (changed.status, changed["revision"], changed.headers["ETag"]) == (200, 2, '"2"')
    assert set(changed.document) == set(made.document) - {"key"}
    assert (changed["name"], changed["budget_per_day_usd"], changed["disabled"]) == ("less", None, True)
    assert changed["ip_allowed"] == settings["ip_allowed"]
    found = await PostgresKeys(api.pool).find(hash_key(made["key"], PEPPER))
    assert found is not None
    assert not found.is_valid(api.clock.now())


LIMITS = {"requests_per_minute_max": 60, "tokens_per_minute_max": 100_000, "concurrency_max": 4}


async def test_a_key_is_under_the_limits_of_its_project_and_organisation_too(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first", "concurrency_max": 9})
    project = f"{owner.org}/projects/{owner.project_id}"
    assert (await owner.api.patch(project, LIMITS))["concurrency_max"] == 4
    assert (await owner.api.patch(project, {"concurrency_max": None}))["tokens_per_minute_max"] == 100_000
    operator = api.as_(await api.operator_token())
    assert (await operator.patch(owner.org, LIMITS))["requests_per_minute_max"] == 60
    found = await PostgresKeys(api.pool).find(hash_key(made["key"], PEPPER))
    assert found is not None
    assert found.limits == (
        ScopedLimits(Tally(Scope.KEY, made["id"]), Limits(concurrency=9)),
        ScopedLimits(Tally(Scope.PROJECT, owner.project_id), Limits(60, 100_000)),
        ScopedLimits(Tally(Scope.ORGANIZATION, made["org_id"]), Limits(60, 100_000, 4)),
    )


async def test_only_an_operator_limits_an_organisation(owner: Account) -> None:
    refused = await owner.api.patch(owner.org, {"requests_per_minute_max": None})
    assert refused.status == 403
    assert (await owner.api.get(owner.org))["requests_per_minute_max"] is None


async def test_a_change_of_what_somebody_else_changed_is_refused(owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    path = f"{owner.org}/keys/{made['id']}"
    replies = await asyncio.gather(*(owner.api.patch(path, {"name": f"edit {i}"}, match=1) for i in range(5)))
    assert sorted(reply.status for reply in replies) == [200, 412, 412, 412, 412]
    assert (await owner.api.call("PATCH", path, {"name": "x"})).status == 428
    assert (await owner.api.patch(path, {"name": "whatever"})).status == 200
    assert (await owner.api.call("PATCH", path, {"name": "x"}, headers={"If-Match": "junk"})).status == 412


async def test_a_rotated_key_works_beside_its_successor_for_the_overlap(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    rotated = await owner.api.post(f"{owner.org}/keys/{made['id']}/rotate", {"overlap_s": 60})
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    keys = PostgresKeys(api.pool)
    old, new = [await keys.find(hash_key(each["key"], PEPPER)) for each in (made, rotated)]
    assert old is not None
    assert new is not None
    now = api.clock.now()
    assert old.key_id == new.key_id
    assert old.is_valid(now)
    assert not old.is_valid(now + timedelta(seconds=61))
    assert new.is_valid(now + timedelta(seconds=61))


async def test_one_overlap_at_a_time_and_an_urgent_rotation_ends_both(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    path = f"{owner.org}/keys/{made['id']}/rotate"
    second = await owner.api.post(path, {"overlap_s": 60})
    refused = await owner.api.post(path, {"overlap_s": 60})
    assert (refused.status, refused.pointers) == (409, ["/overlap_s"])
    third = await owner.api.post(path, {"overlap_s": 0})
    keys, now = PostgresKeys(api.pool), api.clock.now()
    found = [await keys.find(hash_key(each["key"], PEPPER)) for each in (made, second, third)]
    assert [key is not None and key.is_valid(now + timedelta(seconds=1)) for key in found] == [False, False, True]


def heard_changes(payloads: Sequence[str]) -> tuple[list[int], set[str]]:
    """The numbers of announcements and all the hashes in them."""
    parts = [payload.split(":") for payload in payloads]
    return [int(number) for number, _ in parts], {each for _, hashes in parts for each in hashes.split(",")}


async def test_whoever_remembers_keys_hears_of_every_hash_that_changed(api: Api, owner: Account) -> None:
    heard: list[str] = []
    async with api.pool.acquire() as listener:
        await listener.add_listener(Channel.API_KEY, lambda *arguments: heard.append(str(arguments[3])))
        made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
        first = hash_key(made["key"], PEPPER).hex()
        await asyncio.sleep(0.1)
        numbers, hashes = heard_changes(heard)
        assert (sorted(numbers), hashes) == (numbers, {first})
        heard.clear()
        rotated = await owner.api.post(f"{owner.org}/keys/{made['id']}/rotate", {"overlap_s": 60})
        second = hash_key(rotated["key"], PEPPER).hex()
        await asyncio.sleep(0.1)
        assert heard_changes(heard)[1] == {first, second}
        assert len(heard) == 1
        heard.clear()
        await owner.api.delete(f"{owner.org}/keys/{made['id']}")
        await asyncio.sleep(0.1)
        assert heard_changes(heard)[1] == {first, second}
        await listener.reset()


async def test_a_revoked_key_is_gone_for_good(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    path = f"{owner.org}/keys/{made['id']}"
    assert (await owner.api.delete(path)).status == 204
    assert (await owner.api.get(path)).status == 404
    assert (await owner.api.delete(path)).status == 404
    assert (await owner.api.get(f"{owner.org}/keys"))["data"] == []
    found = await PostgresKeys(api.pool).find(hash_key(made["key"], PEPPER))
    assert found is not None
    assert not found.is_valid(api.clock.now())


async def test_an_organisation_has_so_many_keys_that_work_and_those_that_expired_are_in_nobodys_way(
    api: Api, owner: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_api_keys, "KEYS_PER_ORG_MAX", 2)
    keys = f"{owner.org}/keys"
    soon = (api.clock.now() + timedelta(minutes=5)).isoformat()
    expiring = await owner.api.post(keys, {"name": "for a while", "expires_at": soon})
    revoked = await owner.api.post(keys, {"name": "by mistake"})
    assert (await owner.api.post(keys, {"name": "one too many"})).status == 409
    assert (await owner.api.delete(f"{keys}/{revoked['id']}")).status == 204
    assert (await owner.api.post(keys, {"name": "second"})).status == 201
    assert (await owner.api.post(keys, {"name": "one too many"})).status == 409
    api.clock.ahead = timedelta(minutes=5)
    assert (await owner.api.post(keys, {"name": "third"})).status == 201
    # Nor does one come back for which there is no room.
    path = f"{keys}/{expiring['id']}"
    assert (await owner.api.patch(path, {"expires_at": None}, match=1)).status == 409
    assert (await owner.api.patch(path, {"name": "was for a while"}, match=1)).status == 200


async def test_lists_come_in_pages_whose_cursor_fits_no_other_list(owner: Account) -> None:
    names = [f"key {number}" for number in range(7)]
    for name in names:
        await owner.api.post(f"{owner.org}/keys", {"name": name})
    seen: list[str] = []
    cursor = ""
    while True:
        page = await owner.api.get(f"{owner.org}/keys?limit=3" + (f"&cursor={cursor}" if cursor else ""))
        seen += [key["name"] for key in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert seen == names
    assert (await owner.api.get(f"{owner.org}/projects?cursor={cursor}")).pointers == ["?cursor"]
    for wrong in ("junk", cursor[:-2], "%00", "é", cursor + "A"):
        assert (await owner.api.get(f"{owner.org}/keys?cursor={wrong}")).pointers == ["?cursor"], wrong
    assert (await owner.api.get(f"{owner.org}/keys?limit=0&limits=1")).pointers == ["?limit", "?limits"]


async def test_members_are_invited_by_mail_and_only_their_own_address_can_accept(api: Api, owner: Account) -> None:
    guest, thief = await api.sign_up("guest@example.com"), await api.sign_up("thief@example.com")
    invited = await owner.api.post(f"{owner.org}/invitations", {"email": "guest@example.com", "role": "viewer"})
    token = api.mailbox.token("guest@example.com")
    assert token not in invited.text
    assert (await thief.api.post("/invitations/accept", {"token": token})).status == 422
    accepted = await guest.api.post("/invitations/accept", {"token": token})
    assert accepted["role"] == "viewer"
    assert (await guest.api.post("/invitations/accept", {"token": token})).status == 422
    assert (await guest.api.get(owner.org))["role"] == "viewer"
    again = await owner.api.post(f"{owner.org}/invitations", {"email": "guest@example.com", "role": "viewer"})
    assert again.status == 409


async def test_who_accepts_an_invitation_has_shown_that_the_address_is_theirs(api: Api, owner: Account) -> None:
    guest = await api.sign_up("guest@example.com")
    assert (await guest.api.get("/me"))["email_verified_at"] is None
    await owner.api.post(f"{owner.org}/invitations", {"email": "guest@example.com", "role": "viewer"})
    token = api.mailbox.token("guest@example.com")
    assert (await guest.api.post("/invitations/accept", {"token": token[::-1]})).status == 422
    assert (await guest.api.get("/me"))["email_verified_at"] is None
    assert (await guest.api.post("/invitations/accept", {"token": token})).status == 200
    assert (await guest.api.get("/me"))["email_verified_at"] is not None
    operator = api.as_(await api.operator_token())
    made = [(each["action"], each["target_id"]) for each in (await operator.get("/audit?limit=3"))["data"]]
    assert ("user.verify_email", guest.user_id) in made


async def test_an_invitation_ends_when_it_is_revoked_replaced_or_too_old(api: Api, owner: Account) -> None:
    guest = await api.sign_up("guest@example.com")

    async def invite() -> tuple[str, str]:
        made = await owner.api.post(f"{owner.org}/invitations", {"email": "guest@example.com", "role": "viewer"})
        return made["id"], api.mailbox.token("guest@example.com")

    _, first = await invite()
    second_id, second = await invite()
    assert (await guest.api.post("/invitations/accept", {"token": first})).status == 422
    assert (await owner.api.delete(f"{owner.org}/invitations/{second_id}")).status == 204
    assert (await guest.api.post("/invitations/accept", {"token": second})).status == 422
    _, third = await invite()
    api.clock.ahead = timedelta(days=7, seconds=1)
    late = await api.log_in("guest@example.com")
    assert (await api.as_(late["access_token"]).post("/invitations/accept", {"token": third})).status == 422


async def test_the_last_owner_stays_and_nobody_gives_more_than_they_have(api: Api, owner: Account) -> None:
    admin = await api.join(owner, "admin@example.com", "admin")
    mine, theirs = f"{owner.org}/members/{owner.user_id}", f"{owner.org}/members/{admin.user_id}"
    assert (await owner.api.patch(mine, {"role": "viewer"})).status == 409
    assert (await owner.api.delete(mine)).status == 409
    assert (await owner.api.delete(f"{owner.org}/membership")).status == 409
    assert (await admin.api.patch(theirs, {"role": "owner"})).status == 403
    assert (await admin.api.delete(mine)).status == 403
    invitation = {"email": "x@example.com", "role": "owner"}
    assert (await admin.api.post(f"{owner.org}/invitations", invitation)).status == 403
    assert (await owner.api.patch(theirs, {"role": "owner"}))["role"] == "owner"
    # Two owners who remove each other at once: one stays.
    replies = await asyncio.gather(admin.api.delete(mine), owner.api.delete(theirs))
    assert 204 in {reply.status for reply in replies}
    owners = await api.pool.fetchval(
        "SELECT count(*) FROM accounts.memberships WHERE org_id = $1 AND role = 'owner'", owner.org_id
    )
    assert owners == 1


async def test_a_project_has_a_name_of_its_own_and_an_archived_one_takes_no_keys(owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/projects", {"name": "Second"})
    assert (await owner.api.post(f"{owner.org}/projects", {"name": "Second"})).pointers == ["/name"]
    path = f"{owner.org}/projects/{made['id']}"
    assert (await owner.api.patch(path, {"name": "Default"}, match=1)).status == 409
    archived = await owner.api.patch(path, {"archived": True}, match=1)
    assert archived["archived_at"] is not None
    refused = await owner.api.post(f"{owner.org}/keys", {"name": "x", "project_id": made["id"]})
    assert refused.pointers == ["/project_id"]
    assert (await owner.api.patch(path, {"archived": False}, match=2))["archived_at"] is None


async def test_every_change_is_in_the_audit_log_with_who_what_before_and_after(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    changed = await owner.api.patch(f"{owner.org}/keys/{made['id']}", {"name": "second"}, match=1)
    entries = (await owner.api.get(f"{owner.org}/audit"))["data"]
    assert [entry["action"] for entry in entries] == ["key.change", "key.create", "user.register", "org.create"]
    newest = entries[0]
    assert (newest["actor_kind"], newest["actor_id"], newest["target_id"]) == ("user", owner.user_id, made["id"])
    assert newest["actor"] == owner.email
    assert (newest["before"]["name"], newest["after"]["name"]) == ("first", "second")
    assert newest["request_id"] == changed.headers["x-request-id"]
    assert made["key"] not in json.dumps(entries)
    operator = api.as_(await api.operator_token())
    await operator.patch(f"{owner.org}/keys/{made['id']}", {"name": "third"}, match=2)
    # Tenants are not told who runs the installation.
    assert (await owner.api.get(f"{owner.org}/audit"))["data"][0]["actor"] is None
    everything = await operator.get("/audit")
    assert everything["data"][0]["actor"]
    assert "session.open" in {entry["action"] for entry in everything["data"]}
    for statement in ("UPDATE accounts.audit_log SET action = 'x'", "DELETE FROM accounts.audit_log"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await api.pool.execute(statement)


async def test_a_refused_change_leaves_neither_a_change_nor_an_audit_entry(api: Api, owner: Account) -> None:
    before = await api.pool.fetchval("SELECT count(*) FROM accounts.audit_log")
    body = {"name": "x", "project_id": "prj_none"}
    assert (await owner.api.post(f"{owner.org}/keys", body)).status == 422
    assert (await owner.api.post(f"{owner.org}/keys?dry_run=true", {"name": "x"})).status == 201
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.audit_log") == before
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.api_keys") == 0


async def test_an_organisation_has_a_time_zone_of_the_iana_database(owner: Account) -> None:
    assert (await owner.api.get(owner.org))["time_zone"] == "UTC"
    changed = await owner.api.patch(owner.org, {"time_zone": "Europe/Berlin"})
    assert (changed.status, changed["time_zone"]) == (200, "Europe/Berlin")
    renamed = await owner.api.patch(owner.org, {"name": "Other"})
    assert (renamed["name"], renamed["time_zone"]) == ("Other", "Europe/Berlin")
    for wrong in ("Mars/Olympus", "", "../UTC", "localtime", "Factory", "CET"):
        refused = await owner.api.patch(owner.org, {"time_zone": wrong})
        assert (refused.status, refused.pointers) == (422, ["/time_zone"])


async def test_a_user_makes_so_many_organisations_an_hour_and_no_more(api: Api, owner: Account) -> None:
    for number in range(ORGS_PER_USER.attempts_max):
        assert (await owner.api.post("/orgs", {"name": f"One of many {number}"})).status == 201
    refused = await owner.api.post("/orgs", {"name": "One too many"})
    assert (refused.status, "retry-after" in refused.headers) == (429, True)
    other = await api.sign_up("somebody@example.com", "Somebody's")
    assert (await other.api.post("/orgs", {"name": "Another"})).status == 201
