"""Log in at an OpenID Connect issuer: ours is real, on a real Postgres; so is theirs, over HTTP and with signed tokens."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import pytest

from control_plane.accounts.postgres_identities import forget_old_log_ins
from tests.support.api import PASSWORD, Api, Clock, Reply, running_api
from tests.support.oidc_issuer import ISSUER_NAME, OidcIssuer, SigningKey, oidc_issuer, settings_for

PUBLIC_URL = "http://gateway.test"
REDIRECT_URI = f"{PUBLIC_URL}/api/v1/auth/oidc/callback/{ISSUER_NAME}"


@dataclass
class Oidc:
    """Both sides, and the way between them as a browser and a program go it."""

    api: Api
    issuer: OidcIssuer

    async def begin(self, **body: Any) -> Reply:
        return await self.api.post("/auth/oidc/log-ins", {"issuer": ISSUER_NAME, **body})

    async def visit(self, authorization_url: str) -> str:
        """Log in there; returns where the browser is sent."""
        async with self.api.session.get(authorization_url, allow_redirects=False) as response:
            assert response.status == 302, await response.text()
            return response.headers["Location"]

    async def come_back(self, location: str) -> Reply:
        """What our callback answers."""
        assert location.startswith(PUBLIC_URL + "/api/v1")
        return await self.api.get(location.removeprefix(PUBLIC_URL + "/api/v1"), allow_redirects=False)

    async def answer(self, authorization_url: str) -> dict[str, str]:
        """Log in there and come back; returns what the fragment says in the end."""
        there = await self.come_back(await self.visit(authorization_url))
        assert there.status == 303, there.text
        return dict(parse_qsl(urlsplit(there.headers["Location"]).fragment))

    async def exchange(self, begun: Reply, answer: dict[str, str], **others: Any) -> Reply:
        body = {"log_in_secret": begun["log_in_secret"], **answer, **others}
        return await self.api.post("/auth/oidc/tokens", body)

    async def log_in(self) -> Reply:
        """The whole way."""
        begun = await self.begin()
        assert begun.status == 201, begun.text
        return await self.exchange(begun, await self.answer(begun["authorization_url"]))

    async def me(self, tokens: Reply) -> Reply:
        return await self.api.as_(tokens["access_token"]).get("/me")

    async def audit(self) -> list[str]:
        rows = await self.api.pool.fetch("SELECT action FROM accounts.audit_log ORDER BY seq")
        return [row["action"] for row in rows]


@asynccontextmanager
async def running_oidc(
    pool: asyncpg.Pool,
    *,
    is_public_client: bool = False,
    more: Callable[[OidcIssuer], list[Any]] = lambda _: [],
    **settings: Any,
) -> AsyncIterator[Oidc]:
    clock = Clock()
    async with oidc_issuer(clock.now) as issuer:
        issuer.is_public_client = is_public_client
        issuer.redirect_uris.add(REDIRECT_URI)
        issuers = [settings_for(issuer, **settings), *more(issuer)]
        async with running_api(pool, clock=clock, issuers=issuers) as api:
            yield Oidc(api, issuer)


@pytest.fixture
async def oidc(pool: asyncpg.Pool) -> AsyncIterator[Oidc]:
    async with running_oidc(pool) as running:
        yield running


async def test_a_new_user_comes_by_the_issuer_and_is_the_same_one_the_next_time(oidc: Oidc) -> None:
    assert (await oidc.api.get("/auth/oidc/issuers"))["data"] == [{"name": ISSUER_NAME, "issuer": oidc.issuer.url}]
    tokens = await oidc.log_in()
    assert tokens.status == 200, tokens.text
    assert tokens["expires_in"] == 900
    me = await oidc.me(tokens)
    assert (me["email"], me["name"], me["email_verified_at"] is not None) == ("ada@example.com", "Ada", True)
    assert await oidc.audit() == ["user.register", "user.link_identity", "session.open"]
    # The address at the issuer may change and lose its verification; the subject is who it is.
    oidc.issuer.person = {"sub": "ada-1", "email": "new@example.com", "email_verified": False}
    again = await oidc.log_in()
    assert (await oidc.me(again)).document == me.document
    assert (await oidc.api.post("/auth/refresh", {"refresh_token": again["refresh_token"]})).status == 200
    assert (await oidc.api.as_(tokens["access_token"]).post("/orgs", {"name": "Engines"})).status == 201


async def test_who_came_by_the_issuer_has_no_password_until_a_reset_sets_one(oidc: Oidc) -> None:
    tokens = await oidc.log_in()
    mine, unknown = await oidc.api.log_in("ada@example.com"), await oidc.api.log_in("nobody@example.com")
    assert (mine.status, mine["detail"]) == (unknown.status, unknown["detail"]) == (401, unknown["detail"])
    ada = oidc.api.as_(tokens["access_token"])
    change = await ada.post("/me/password", {"current_password": "x", "new_password": PASSWORD})
    assert change.pointers == ["/current_password"]
    await oidc.api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    body = {"token": oidc.api.mailbox.token("ada@example.com"), "password": PASSWORD}
    assert (await oidc.api.post("/auth/password-resets", body)).status == 204
    assert (await oidc.api.log_in("ada@example.com")).status == 200
    assert (await oidc.log_in()).status == 200


async def test_a_user_with_a_verified_address_is_linked_and_keeps_password_and_sessions(oidc: Oidc) -> None:
    ada = await oidc.api.sign_up("Ada@example.com")
    await oidc.api.post("/auth/verify-email", {"token": oidc.api.mailbox.token("Ada@example.com")})
    tokens = await oidc.log_in()
    assert (await oidc.me(tokens))["id"] == ada.user_id
    assert (await ada.api.get("/me")).status == 200
    assert (await oidc.api.log_in("ada@example.com")).status == 200
    [linked] = await oidc.api.pool.fetch("SELECT * FROM accounts.identities")
    assert (linked["issuer"], linked["subject"], linked["user_id"]) == (oidc.issuer.url, "ada-1", ada.user_id)


async def test_whoever_registered_an_address_before_its_owner_is_out_when_the_owner_comes(oidc: Oidc) -> None:
    squatter = await oidc.api.sign_up("ada@example.com")
    friend = await oidc.api.sign_up("friend@example.com")
    key = await squatter.api.post(f"{squatter.org}/keys", {"name": "waiting"})
    scopes = ["keys:write", "tokens:write"]
    token = await squatter.api.post(f"{squatter.org}/tokens", {"name": "waiting", "scopes": scopes})
    # What a token of theirs has made is theirs, too.
    by_token = oidc.api.as_(token["token"])
    second = await by_token.post(f"{squatter.org}/tokens", {"name": "behind it", "scopes": ["keys:write"]})
    hidden = await oidc.api.as_(second["token"]).post(f"{squatter.org}/keys", {"name": "behind that"})
    invitation = {"email": "friend@example.com", "role": "owner"}
    await squatter.api.post(f"{squatter.org}/invitations", invitation)
    await oidc.api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    mailed = oidc.api.mailbox.token("ada@example.com")

    tokens = await oidc.log_in()
    assert (await oidc.me(tokens))["id"] == squatter.user_id
    assert (await oidc.me(tokens))["email_verified_at"] is not None
    assert (await squatter.api.get("/me")).status == 401
    assert (await oidc.api.post("/auth/refresh", {"refresh_token": squatter.refresh_token})).status == 401
    assert (await oidc.api.log_in("ada@example.com")).status == 401
    for each in (token, second):
        assert (await oidc.api.as_(each["token"]).get(f"{squatter.org}/keys")).status == 401
    ada = oidc.api.as_(tokens["access_token"])
    for each in (key, hidden):
        assert (await ada.get(f"{squatter.org}/keys/{each['id']}"))["disabled"] is True
    accepted = await friend.api.post("/invitations/accept", {"token": oidc.api.mailbox.token("friend@example.com")})
    assert accepted.status == 422
    assert (await oidc.api.post("/auth/password-resets", {"token": mailed, "password": PASSWORD})).status == 422
    assert (await oidc.audit())[-3:] == ["user.take_over", "user.link_identity", "session.open"]


async def test_a_password_that_is_taken_away_while_it_is_checked_opens_no_session(oidc: Oidc) -> None:
    await oidc.api.sign_up("ada@example.com")
    async with oidc.api.pool.acquire() as connection, connection.transaction():
        # The owner's log-in, halfway through.
        await connection.execute("UPDATE accounts.users SET password_hash = NULL")
        racing = asyncio.create_task(oidc.api.log_in("ada@example.com"))
        for _ in range(1000):
            if await oidc.api.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                break
            await asyncio.sleep(0.01)
    assert (await racing).status == 401


@pytest.mark.parametrize("word", [False, None, "false", 1])
async def test_an_address_the_issuer_has_not_verified_opens_nothing_and_makes_nothing(oidc: Oidc, word: object) -> None:
    ada = await oidc.api.sign_up("ada@example.com")
    oidc.issuer.person = {"sub": "eve-1", "email": "ada@example.com", "email_verified": word}
    refused = await oidc.log_in()
    assert (refused.status, refused["code"]) == (403, "forbidden")
    oidc.issuer.person["email"] = "new@example.com"
    assert (await oidc.log_in())["detail"] == refused["detail"]
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.users") == 1
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.identities") == 0
    assert (await ada.api.get("/me")).status == 200


async def test_an_issuer_vouches_for_its_domains_only(pool: asyncpg.Pool) -> None:
    async with running_oidc(pool, email_domains=["Corp.example"]) as oidc:
        await oidc.api.sign_up("ada@example.com")
        assert (await oidc.log_in()).status == 403
        oidc.issuer.person = {"sub": "bob-1", "email": "bob@corp.example.evil.example", "email_verified": True}
        assert (await oidc.log_in()).status == 403
        oidc.issuer.person["email"] = "bob@CORP.example"
        assert (await oidc.log_in()).status == 200


async def test_where_sign_up_is_not_allowed_only_those_with_an_account_log_in(pool: asyncpg.Pool) -> None:
    async with running_oidc(pool, sign_up=False) as oidc:
        assert (await oidc.log_in()).status == 403
        assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.users") == 0
        await oidc.api.sign_up("ada@example.com")
        assert (await oidc.log_in()).status == 200


async def test_a_disabled_user_stays_outside_whichever_way_they_come(oidc: Oidc) -> None:
    await oidc.log_in()
    await oidc.api.pool.execute("UPDATE accounts.users SET disabled_at = now()")
    assert (await oidc.log_in()).status == 403
    oidc.issuer.person = {**oidc.issuer.person, "sub": "ada-2"}
    assert (await oidc.log_in()).status == 409
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.users") == 1


def with_claim(**claims: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Claims that are added, or with None taken away."""
    return lambda found: {name: value for name, value in {**found, **claims}.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (with_claim(nonce="of another log-in"), SigningKey.sign),
        (with_claim(nonce=None), SigningKey.sign),
        (with_claim(aud="somebody else"), SigningKey.sign),
        (with_claim(aud=["tollgate at test", "somebody else"]), SigningKey.sign),
        (with_claim(azp="somebody else"), SigningKey.sign),
        (with_claim(iss="https://accounts.evil.example"), SigningKey.sign),
        (lambda claims: {**claims, "exp": claims["iat"] - 61}, SigningKey.sign),
        (lambda claims: {**claims, "iat": claims["iat"] + 90}, SigningKey.sign),
        (with_claim(exp=None), SigningKey.sign),
        (with_claim(sub=None), SigningKey.sign),
        (with_claim(), SigningKey.unsigned),
        (with_claim(), SigningKey.sign_with_public_key),
        (with_claim(), lambda key, claims: SigningKey("RS256").sign(claims) if key else ""),
        (with_claim(), lambda key, claims: key.sign(claims)[:-8] + "AAAAAAAA"),
        (with_claim(), lambda key, claims: "no token" if key and claims else ""),
    ],
    ids=[
        *("other nonce", "no nonce", "other audience", "several audiences", "other party", "other issuer", "expired"),
        *("from the future", "no expiry", "no subject", "none", "HS256 with the public key", "unpublished key"),
        *("broken signature", "no token"),
    ],
)
async def test_an_id_token_that_proves_nothing_logs_nobody_in(
    oidc: Oidc,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    sign: Callable[[SigningKey, dict[str, Any]], str],
) -> None:
    oidc.issuer.change, oidc.issuer.sign = change, sign
    refused = await oidc.log_in()
    assert (refused.status, refused["code"]) == (401, "unauthenticated")
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.users") == 0
    assert await oidc.audit() == []


async def test_a_state_is_good_once_even_for_two_at_once(oidc: Oidc) -> None:
    begun = await oidc.begin()
    answer = await oidc.answer(begun["authorization_url"])
    replies = await asyncio.gather(*(oidc.exchange(begun, answer) for _ in range(2)))
    assert sorted(reply.status for reply in replies) == [200, 401]
    assert (await oidc.exchange(begun, answer)).status == 401
    replayed = await oidc.come_back(f"{REDIRECT_URI}?{urlencode(answer)}")
    assert replayed.pointers == ["?state"]


async def test_a_state_is_used_up_by_a_log_in_that_fails(oidc: Oidc) -> None:
    begun = await oidc.begin()
    answer = await oidc.answer(begun["authorization_url"])
    assert (await oidc.exchange(begun, answer, code="made up")).status == 401
    assert (await oidc.exchange(begun, answer)).status == 401


async def test_a_log_in_is_worth_nothing_to_who_has_not_begun_it_or_after_ten_minutes(oidc: Oidc) -> None:
    mine, theirs = await oidc.begin(), await oidc.begin()
    answer = await oidc.answer(mine["authorization_url"])
    assert (await oidc.exchange(theirs, answer)).status == 401
    assert (await oidc.exchange(mine, answer, state="made-up")).status == 401
    oidc.api.clock.ahead = timedelta(minutes=10, seconds=1)
    assert (await oidc.exchange(mine, answer)).status == 401
    assert (await oidc.come_back(f"{REDIRECT_URI}?{urlencode(answer)}")).status == 422


async def test_the_issuer_refuses_a_code_of_another_log_in_by_its_pkce_verifier(oidc: Oidc) -> None:
    mine, theirs = await oidc.begin(), await oidc.begin()
    stolen = (await oidc.answer(theirs["authorization_url"]))["code"]
    own = await oidc.answer(mine["authorization_url"])
    refused = await oidc.exchange(mine, own, code=stolen)
    assert refused.status == 401
    assert "does not take this code" in refused["detail"]


async def test_only_hashes_of_a_log_in_are_kept(oidc: Oidc) -> None:
    begun = await oidc.begin()
    [row] = await oidc.api.pool.fetch("SELECT * FROM accounts.oidc_log_ins")
    query = parse_qs(urlsplit(begun["authorization_url"]).query)
    text = repr(dict(row))
    for secret in (begun["log_in_secret"], query["state"][0], query["nonce"][0], query["code_challenge"][0]):
        assert secret not in text


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_key_the_issuer_has_made_since_is_found_without_a_restart(oidc: Oidc, algorithm: Any) -> None:
    assert (await oidc.log_in()).status == 200
    assert (await oidc.log_in()).status == 200
    assert oidc.issuer.asked["/keys"] == 1
    oidc.issuer.rotate(algorithm)
    assert (await oidc.log_in()).status == 200
    assert oidc.issuer.asked["/keys"] == 2
    assert oidc.issuer.asked["/.well-known/openid-configuration"] == 1
    oidc.api.clock.ahead = timedelta(hours=1, seconds=1)
    assert (await oidc.log_in()).status == 200
    assert oidc.issuer.asked["/keys"] == 3
    assert oidc.issuer.asked["/.well-known/openid-configuration"] == 2


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys", "/userinfo"])
async def test_an_issuer_that_fails_is_a_clear_503_wherever_it_fails(oidc: Oidc, path: str) -> None:
    oidc.issuer.failing = path
    oidc.issuer.in_userinfo = True
    begun = await oidc.begin()
    reply = begun
    if begun.status == 201:
        reply = await oidc.exchange(begun, await oidc.answer(begun["authorization_url"]))
    assert (reply.status, reply["code"]) == (503, "issuer_unavailable")
    oidc.issuer.failing = None
    assert (await oidc.log_in()).status == 200


async def test_an_issuer_that_is_gone_is_a_clear_503_and_everything_else_goes_on(pool: asyncpg.Pool) -> None:
    clock = Clock()
    async with oidc_issuer(clock.now) as issuer:
        settings = settings_for(issuer)
    async with running_api(pool, clock=clock, issuers=[settings]) as api:
        begun = await api.post("/auth/oidc/log-ins", {"issuer": ISSUER_NAME})
        assert (begun.status, begun["code"]) == (503, "issuer_unavailable")
        await api.sign_up("ada@example.com")


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://accounts.evil.example"},
        {"token_endpoint": "http://accounts.evil.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": ["a list"]},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_discovery_document_that_leads_elsewhere_is_not_followed(oidc: Oidc, discovery: Any) -> None:
    oidc.issuer.discovery = discovery
    begun = await oidc.begin()
    assert (begun.status, begun["code"]) == (503, "issuer_unavailable")


@pytest.mark.parametrize("path", ["/elsewhere", "/endless"])
async def test_redirects_are_not_followed_and_answers_without_end_are_not_read(oidc: Oidc, path: str) -> None:
    oidc.issuer.discovery = {"jwks_uri": f"{oidc.issuer.url}{path}"}
    assert (await oidc.log_in()).status == 503
    assert oidc.issuer.asked[path] == 1
    assert "/keys" not in oidc.issuer.asked


async def test_an_issuer_that_says_nothing_is_given_up(oidc: Oidc) -> None:
    oidc.issuer.discovery = {"jwks_uri": f"{oidc.issuer.url}/silent"}
    async with asyncio.timeout(15):
        assert (await oidc.log_in()).status == 503


async def test_a_public_client_has_pkce_and_no_secret(pool: asyncpg.Pool) -> None:
    async with running_oidc(pool, is_public_client=True) as oidc:
        assert (await oidc.log_in()).status == 200


async def test_the_secret_goes_into_the_form_where_the_issuer_takes_it_only_there(oidc: Oidc) -> None:
    oidc.issuer.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await oidc.log_in()).status == 200


async def test_an_address_that_is_not_in_the_id_token_is_asked_for(oidc: Oidc) -> None:
    oidc.issuer.in_userinfo = True
    assert (await oidc.me(await oidc.log_in()))["email"] == "ada@example.com"
    oidc.issuer.userinfo = {"sub": "somebody else"}
    assert (await oidc.log_in()).status == 401


async def test_a_code_never_comes_in_by_the_way_of_another_issuer(pool: asyncpg.Pool) -> None:
    async with running_oidc(pool, more=lambda issuer: [settings_for(issuer, name="evil")]) as oidc:
        begun = await oidc.api.post("/auth/oidc/log-ins", {"issuer": "evil"})
        # The evil issuer sends the browser on to the honest one, with the state of the log-in that was begun at itself.
        parts = urlsplit(begun["authorization_url"])
        query = {**dict(parse_qsl(parts.query)), "redirect_uri": REDIRECT_URI}
        honest = urlunsplit(parts._replace(query=urlencode(query)))
        mixed = await oidc.come_back(await oidc.visit(honest))
        assert mixed.pointers == ["?state"]
        assert "code=" not in mixed.text

        begun = await oidc.begin()
        location = await oidc.visit(begun["authorization_url"])
        other = location.replace(f"iss={oidc.issuer.url}", "iss=https://evil.example")
        assert other != location
        assert (await oidc.come_back(other)).pointers == ["?iss"]


async def test_the_browser_ends_up_on_this_server_and_nowhere_else(oidc: Oidc) -> None:
    begun = await oidc.begin(return_to="/console/log-in")
    there = await oidc.come_back(await oidc.visit(begun["authorization_url"]))
    assert there.headers["Location"].startswith(f"{PUBLIC_URL}/console/log-in#code=")
    for elsewhere in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/x//evil.example",
        "evil.example",
        ".evil.example",
        "@evil.example",
        "/../admin",
        "/x?next=https://evil.example",
        "/x#code=mine",
        "/x\r\nLocation: https://evil.example",
        "/%2f%2fevil.example",
        "",
    ):
        assert (await oidc.begin(return_to=elsewhere)).pointers == ["/return_to"], elsewhere


async def test_what_the_issuer_refuses_arrives_where_the_log_in_was_begun(oidc: Oidc) -> None:
    oidc.issuer.refusal = "access_denied"
    begun = await oidc.begin()
    answer = await oidc.answer(begun["authorization_url"])
    assert answer["error"] == "access_denied"
    assert "code" not in answer
    for error in ("", "<script>", "a" * 101):
        query = urlencode({"state": answer["state"], "error": error})
        assert (await oidc.come_back(f"{REDIRECT_URI}?{query}")).pointers == ["?error"]
    for query in (
        urlencode({"state": answer["state"]}),
        urlencode({"state": answer["state"], "code": "x", "error": "y"}),
    ):
        assert (await oidc.come_back(f"{REDIRECT_URI}?{query}")).pointers == ["?code"]


async def test_an_unknown_issuer_is_named_as_the_fault(oidc: Oidc) -> None:
    unknown = await oidc.api.post("/auth/oidc/log-ins", {"issuer": "nobody"})
    assert unknown.pointers == ["/issuer"]


async def test_the_page_for_programs_runs_its_own_script_and_no_other(oidc: Oidc) -> None:
    begun = await oidc.begin()
    there = await oidc.come_back(await oidc.visit(begun["authorization_url"]))
    assert there.headers["Location"].startswith(f"{PUBLIC_URL}/sign-in#code=")
    async with oidc.api.session.get(f"{oidc.api.url}/sign-in") as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_log_ins_that_were_never_finished_are_forgotten(oidc: Oidc) -> None:
    await oidc.begin()
    await forget_old_log_ins(oidc.api.pool, oidc.api.clock.now())
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.oidc_log_ins") == 1
    await forget_old_log_ins(oidc.api.pool, oidc.api.clock.now() + timedelta(minutes=10))
    assert await oidc.api.pool.fetchval("SELECT count(*) FROM accounts.oidc_log_ins") == 0
