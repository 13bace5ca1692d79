"""The console over HTTP, without a browser: who gets in, what each may see and do, and what no page does."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import asyncpg
import pytest

from control_plane.accounts.throttle import LOGIN_PER_SOURCE
from control_plane.console.guard import HEADERS
from control_plane.console.sessions import COOKIE, LIFETIME
from tests.support.api import PASSWORD, Account, Api, running_api
from tests.support.catalog_api import serve
from tests.support.console import Browser, browsing

EMAIL: Final = "ada@example.com"


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    async with browsing(api.url) as created:
        yield created


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[Browser]:
    async with browsing(api.url) as created:
        assert (await created.sign_in_with(await api.operator_token())).status == 200
        yield created


def cookie_of(browser: Browser) -> str | None:
    return next((cookie.value for cookie in browser.session.cookie_jar if cookie.key == COOKIE), None)


async def test_a_newcomer_registers_and_makes_a_key_that_is_shown_once(api: Api, browser: Browser) -> None:
    page = await browser.post("/register", {"email": EMAIL, "password": PASSWORD, "organization": "Engines"})
    assert (page.status, page.heading) == (200, "Engines")
    assert "$0.00" in page.text

    made = await browser.post(page.path.removeprefix("/console") + "keys", {"name": "laptop", "mode": "live"})
    assert made.status == 201
    [key] = {word for word in made.text.replace("<", " ").replace(">", " ").split() if word.startswith("sk-tg-live-")}
    later = await browser.get(page.path.removeprefix("/console") + "keys")
    assert "laptop" in later.text
    assert key not in later.text
    assert made.headers["Cache-Control"] == "no-store"
    row = await api.pool.fetchrow("SELECT actor_kind, action FROM accounts.audit_log WHERE action = 'key.create'")
    assert row is not None
    assert row["actor_kind"] == "user"


async def test_what_is_wrong_with_a_form_is_said_beside_what_was_written(browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    page = await browser.post(
        f"{owner.org}/keys",
        {"name": "laptop", "mode": "live", "requests_per_minute_max": "many", "ip_allowed": "nowhere"},
    )
    assert page.status == 422
    assert "requests per minute max" in page.refusal
    assert "ip allowed" in page.refusal
    assert page.written("name") == "laptop"
    assert page.written("requests_per_minute_max") == "many"


async def test_limits_of_a_key_are_changed_and_a_stale_page_changes_nothing(browser: Browser, owner: Account) -> None:
    made = (await owner.api.post(f"{owner.org}/keys", {"name": "laptop"})).document
    path = f"{owner.org}/keys/{made['id']}"
    await browser.sign_in(owner.email, PASSWORD)
    revision = (await browser.get(path)).written("revision")
    form = {"name": "laptop", "revision": revision, "concurrency_max": "3", "budget_per_day_usd": "1.50"}

    changed = await browser.post(path, form)
    assert (changed.status, changed.written("concurrency_max")) == (200, "3")
    again = await browser.post(path, {**form, "concurrency_max": "4"})
    assert again.status == 412

    now = await owner.api.get(path)
    assert (now["concurrency_max"], now["budget_per_day_usd"], now["disabled"]) == (3, "1.50", False)


async def test_a_key_is_rotated_and_revoked(browser: Browser, owner: Account) -> None:
    made = (await owner.api.post(f"{owner.org}/keys", {"name": "laptop"})).document
    await browser.sign_in(owner.email, PASSWORD)
    rotated = await browser.post(f"{owner.org}/keys/{made['id']}/rotate", {"overlap_s": "0"})
    assert rotated.status == 200
    assert "sk-tg-live-" in rotated.text
    assert made["key"] not in rotated.text
    revoked = await browser.post(f"{owner.org}/keys/{made['id']}/revoke", {})
    assert (revoked.status, revoked.path) == (200, f"/console{owner.org}/keys")
    assert (await owner.api.get(f"{owner.org}/keys/{made['id']}")).status == 404


async def test_a_wrong_password_lets_nobody_in(browser: Browser, owner: Account) -> None:
    page = await browser.sign_in(owner.email, "something else entirely")
    assert (page.status, page.refusal) == (401, "E-mail address or password is wrong.")
    assert cookie_of(browser) is None
    assert (await browser.sign_in_with("tg-op-nothing")).status == 401
    assert cookie_of(browser) is None


async def test_tokens_are_not_tried_without_end(browser: Browser) -> None:
    for _ in range(LOGIN_PER_SOURCE.attempts_max):
        assert (await browser.sign_in_with("tg-op-nothing")).status == 401
    assert (await browser.sign_in_with("tg-op-nothing")).status == 429


async def test_who_is_not_signed_in_signs_in_and_gets_where_they_wanted_to(browser: Browser, owner: Account) -> None:
    page = await browser.get(f"{owner.org}/keys?cursor=")
    assert page.path.startswith("/console/sign-in?next=")
    after = await browser.post("/sign-in", {"email": owner.email, "password": PASSWORD, "next": page.written("next")})
    assert after.path == f"/console{owner.org}/keys?cursor="


async def test_a_part_of_a_page_sends_the_whole_page_to_sign_in(browser: Browser, owner: Account) -> None:
    answer = await browser.get(f"{owner.org}/figures", **{"HX-Request": "true"})
    assert (answer.status, answer.headers["HX-Redirect"]) == (401, "/console/sign-in")


async def test_a_page_of_somebody_else_changes_nothing(browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    for headers in (
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        refused = await browser.post(f"{owner.org}/keys", {"name": "theirs", "mode": "live"}, **headers)
        assert (refused.status, refused.heading) == (403, "Not allowed"), headers
        assert (await browser.post("/sign-out", {}, **headers)).status == 403
    assert (await owner.api.get(f"{owner.org}/keys"))["data"] == []
    assert (await browser.get(f"{owner.org}/keys")).path == f"/console{owner.org}/keys"


async def test_what_says_nothing_of_where_it_comes_from_changes_nothing(browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    async with browser.session.post(f"{browser.url}/console{owner.org}/keys", data={"name": "x"}) as answer:
        assert answer.status == 403


async def test_every_answer_has_the_policy(browser: Browser) -> None:
    for path in ("/sign-in", "/nothing", "/static/console.js", "/orgs/org_nothing/"):
        async with browser.session.get(f"{browser.url}/console{path}", allow_redirects=False) as answer:
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path


async def test_the_cookie_is_for_no_script_and_for_the_console_alone_and_not_in_the_database(
    api: Api, browser: Browser, owner: Account
) -> None:
    form = {"email": owner.email, "password": PASSWORD}
    async with browser.session.post(
        f"{browser.url}/console/sign-in", data=form, headers={"Origin": browser.url}, allow_redirects=False
    ) as answer:
        morsel = answer.cookies[COOKIE]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/console")
    assert int(morsel["max-age"]) == LIFETIME.total_seconds()
    [stored] = await api.pool.fetch("SELECT * FROM accounts.console_sessions")
    assert morsel.value not in str(dict(stored))
    assert morsel.value.encode() not in stored["cookie_hash"]


async def test_behind_https_the_cookie_is_sent_over_nothing_else(pool: asyncpg.Pool) -> None:
    async with running_api(pool, public_url="https://tollgate.example.com") as api, browsing(api.url) as browser:
        owner = await api.sign_up(EMAIL)
        await browser.sign_in(owner.email, PASSWORD)
        [cookie] = [each for each in browser.session.cookie_jar if each.key == COOKIE]
        assert cookie["secure"]


async def test_signing_out_ends_it_for_whoever_has_the_cookie(api: Api, browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    cookie = cookie_of(browser)
    out = await browser.post("/sign-out", {})
    assert out.path == "/console/sign-in"
    async with browsing(api.url) as thief:
        page = await thief.get(f"{owner.org}/keys", Cookie=f"{COOKIE}={cookie}")
        assert page.path.startswith("/console/sign-in")
    # Of the API as well: the session that the sign-in had opened is over.
    open_sessions = await api.pool.fetchval("SELECT count(*) FROM accounts.sessions WHERE revoked_at IS NULL")
    assert open_sessions == 1  # that of `owner`, who signed up with another one


async def test_it_ends_with_the_session_it_was_opened_with(browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    changed = await owner.api.post(
        "/me/password", {"current_password": PASSWORD, "new_password": "another horse battery"}
    )
    assert changed.status == 204
    assert (await browser.get(f"{owner.org}/keys")).path.startswith("/console/sign-in")


async def test_it_ends_with_the_token_it_was_opened_with(api: Api, operator: Browser) -> None:
    assert (await operator.get("/providers")).status == 200
    await api.pool.execute("UPDATE accounts.machine_tokens SET disabled_at = now()")
    assert (await operator.get("/providers")).path.startswith("/console/sign-in")


async def test_it_ends_after_twelve_hours(api: Api, browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    api.clock.ahead = LIFETIME - timedelta(minutes=1)
    assert (await browser.get(f"{owner.org}/keys")).path == f"/console{owner.org}/keys"
    api.clock.ahead = LIFETIME
    assert (await browser.get(f"{owner.org}/keys")).path.startswith("/console/sign-in")


async def test_names_are_shown_as_they_are_and_run_nowhere(browser: Browser, owner: Account) -> None:
    name = "<script>alert('1')</script>\"><b>"
    assert (await owner.api.patch(owner.org, {"name": name})).status == 200
    made = (await owner.api.post(f"{owner.org}/keys", {"name": name})).document
    await browser.sign_in(owner.email, PASSWORD)
    for path in (f"{owner.org}/", f"{owner.org}/keys", f"{owner.org}/keys/{made['id']}", "/orgs"):
        page = await browser.get(path)
        assert page.status == 200
        assert "alert(" in page.text
        assert "<script>" not in page.text
        assert "<b>" not in page.text
    assert (await browser.get(f"{owner.org}/keys/{made['id']}")).written("name") == name


@pytest.mark.parametrize("role", ["viewer", "developer", "billing"])
async def test_each_role_is_offered_what_it_may_and_gets_no_more(api: Api, owner: Account, role: str) -> None:
    member = await api.join(owner, f"{role}@example.com", role)
    async with browsing(api.url) as browser:
        await browser.sign_in(member.email, PASSWORD)
        links = (await browser.get(f"{owner.org}/")).links()
        base = f"/console{owner.org}/"
        assert (f"{base}money" in links) is (role == "billing")
        assert (f"{base}playground" in links) is (role == "developer")
        assert not {link for link in links if link.startswith("/console/providers")}
        assert (await browser.get(f"{owner.org}/money")).status == (200 if role == "billing" else 403)
        made = await browser.post(f"{owner.org}/keys", {"name": "mine", "mode": "live"})
        assert made.status == (201 if role == "developer" else 403)
        assert (await browser.post(f"{owner.org}/credits", {"amount": "5", "reason": "me"})).status == 403
        assert (await browser.get("/providers")).status == 403


async def test_nobody_sees_an_organisation_that_is_not_theirs(api: Api, owner: Account, browser: Browser) -> None:
    stranger = await api.sign_up("stranger@example.com", "Elsewhere")
    await browser.sign_in(stranger.email, PASSWORD)
    for path in ("/", "/keys", "/usage", "/money", "/requests", "/playground", "/figures", "/invoices/draft/pdf"):
        assert (await browser.get(f"{owner.org}{path}")).status == 404, path
    assert (await browser.post(f"{owner.org}/keys", {"name": "mine", "mode": "live"})).status == 404


async def test_an_operator_gives_credit_and_the_tenant_sees_it(
    operator: Browser, browser: Browser, owner: Account
) -> None:
    given = await operator.post(f"{owner.org}/credits", {"amount": "5.00", "reason": "to begin with"})
    assert given.status == 200
    await browser.sign_in(owner.email, PASSWORD)
    money = await browser.get(f"{owner.org}/money")
    assert "$5.00" in money.text
    assert "to begin with" in money.text
    invoice = await browser.get(f"{owner.org}/invoices/draft/csv")
    assert invoice.headers["Content-Disposition"].startswith("attachment")
    assert "credit" in invoice.text


async def test_the_same_form_sent_twice_is_done_once_and_another_page_begins_anew(
    operator: Browser, owner: Account
) -> None:
    path = f"{owner.org}/credits"
    form = {
        "amount": "5.00",
        "reason": "a double click",
        "form_id": (await operator.get(f"{owner.org}/money")).written("form_id"),
    }
    both = await asyncio.gather(operator.post(path, form), operator.post(path, form))
    assert [page.status for page in both] == [200, 200]
    assert (await owner.api.get(f"{owner.org}/balance"))["available"] == "5.00"
    assert (await operator.post(path, {**form, "amount": "1.00"})).status == 200
    again = {**form, "form_id": (await operator.get(f"{owner.org}/money")).written("form_id")}
    assert (await operator.post(path, again)).status == 200
    assert (await owner.api.get(f"{owner.org}/balance"))["available"] == "11.00"


async def test_a_key_made_by_a_double_click_is_one_key_and_both_answers_show_it(
    browser: Browser, owner: Account
) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    path = f"{owner.org}/keys"
    form = {"name": "laptop", "mode": "live", "form_id": (await browser.get(path)).written("form_id")}
    first, second = await asyncio.gather(browser.post(path, form), browser.post(path, form))
    shown = [re.findall(r"sk-tg-live-\w+", page.text) for page in (first, second)]
    assert shown[0] == shown[1]
    assert shown[0]
    assert len((await owner.api.get(path))["data"]) == 1


async def test_a_route_is_edited_compared_and_published(api: Api, operator: Browser) -> None:
    as_operator = api.as_(await api.operator_token())
    await serve(as_operator, "small", "first")
    path = "/routes/small"
    page = await operator.get(path)
    form = {
        "revision": page.written("revision"),
        "match": "small",
        "strategy": "weighted",
        "published": "on",
        "group_0": "1",
        "provider_0": "first",
        "weight_0": "7",
    }
    compared = await operator.post(f"{path}/preview", form)
    assert compared.status == 200
    assert re.search(r'<span class="after">\+ +&#34;weight&#34;: 7', compared.text)
    assert (await as_operator.get(path))["groups"] == [[{"provider": "first", "weight": 1}]]  # until it is published

    published = await operator.post(path, form)
    assert (published.status, published.path.startswith("/console/operations/op_")) == (200, True)
    assert 'hx-trigger="every 500ms"' in published.text  # nobody publishes here, so it goes on asking
    assert (await as_operator.get(path))["groups"] == [[{"provider": "first", "weight": 7}]]
    assert (await operator.post(path, form)).status == 412


async def test_a_route_that_names_nobody_is_refused_before_it_is_compared(api: Api, operator: Browser) -> None:
    as_operator = api.as_(await api.operator_token())
    await serve(as_operator, "small", "first")
    form = {"match": "small", "strategy": "weighted", "published": "on", "group_0": "1", "provider_0": "nobody"}
    revision = (await operator.get("/routes/small")).written("revision")
    page = await operator.post("/routes/small/preview", {**form, "revision": revision})
    assert page.status == 422
    assert "nobody" in page.text


async def test_a_provider_is_paused_and_resumed(api: Api, operator: Browser) -> None:
    as_operator = api.as_(await api.operator_token())
    await serve(as_operator, "small", "first")
    paused = await operator.post("/providers/first/pause", {"reason": "its key has leaked"})
    assert paused.path.startswith("/console/operations/")
    states = await operator.get("/provider-states")
    assert "paused" in states.text
    assert "its key has leaked" in states.text
    assert (await operator.post("/providers/first/resume", {"reason": "a new one"})).status == 200
    assert "healthy" in (await operator.get("/providers/first")).text


async def test_the_books_and_the_catalogue_are_shown(api: Api, operator: Browser) -> None:
    as_operator = api.as_(await api.operator_token())
    await serve(as_operator, "small", "first")
    assert (await operator.get("/books?anew=true")).status == 200
    ordered = await operator.post("/books/inspections", {})
    assert ordered.path.startswith("/console/books/inspections/")
    model = await operator.get("/models/small")
    assert "By route" in model.text
    assert "1M tokens" in model.text
    assert (await operator.get("/operations")).status == 200
    assert (await operator.get("/requests?id=req_nothing")).status == 404


async def test_the_playground_is_for_who_may_make_keys_and_says_when_nobody_answers(api: Api, owner: Account) -> None:
    viewer = await api.join(owner, "viewer@example.com", "viewer")
    question = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    for account, status in ((viewer, 403), (owner, 503)):
        async with browsing(api.url) as browser:
            await browser.sign_in(account.email, PASSWORD)
            async with browser.session.post(
                f"{browser.url}/console{owner.org}/playground", json=question, headers={"Origin": browser.url}
            ) as answer:
                assert answer.status == status
    [key] = (await owner.api.get(f"{owner.org}/keys"))["data"]
    assert key["name"] == "Playground"
    assert key["expires_at"] is not None


async def test_signing_out_revokes_the_key_of_the_playground(browser: Browser, owner: Account) -> None:
    await browser.sign_in(owner.email, PASSWORD)
    question = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    async with browser.session.post(
        f"{browser.url}/console{owner.org}/playground", json=question, headers={"Origin": browser.url}
    ) as answer:
        assert answer.status == 503  # there is no gateway, but by now there is a key
    assert len((await owner.api.get(f"{owner.org}/keys"))["data"]) == 1
    await browser.post("/sign-out", {})
    assert (await owner.api.get(f"{owner.org}/keys"))["data"] == []
