"""Sign up, log in, stay in, leave, on a real Postgres."""

import asyncio
import base64
import json
import re
import secrets
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import asyncpg
import jwt
from pydantic import SecretStr

from control_plane.accounts.mail import Mail
from control_plane.accounts.redis_counters import RedisCounters
from control_plane.api.mail_pages import RESET_PASSWORD, VERIFY_EMAIL
from gateway_core.networks import parse_networks
from local_stack.valkey import running_valkey
from tests.support.api import PASSWORD, Api, running_api


async def test_a_new_user_owns_an_organisation_with_a_project_and_an_empty_balance(api: Api) -> None:
    made = await api.post(
        "/auth/register", {"email": "Ada@Example.com", "password": PASSWORD, "organization": "Engines"}
    )
    assert made.status == 201
    assert made["organization"]["name"] == "Engines"
    assert PASSWORD not in made.text
    assert "password" not in made.text
    tokens = await api.log_in("ada@example.COM")
    ada = api.as_(tokens["access_token"])
    assert (await ada.get("/me"))["email"] == "Ada@Example.com"
    [org] = (await ada.get("/orgs"))["data"]
    assert (org["id"], org["role"]) == (made["organization"]["id"], "owner")
    assert (
        await api.pool.fetchval(
            "SELECT posted_nano_usd FROM billing.accounts WHERE org_id = $1 AND mode = 'live'", org["id"]
        )
        == 0
    )
    stored = await api.pool.fetchval("SELECT password_hash FROM accounts.users")
    assert stored.startswith("$argon2id$")


async def test_an_address_has_one_account_even_if_two_register_at_once(api: Api) -> None:
    replies = await asyncio.gather(
        *(
            api.post("/auth/register", {"email": email, "password": PASSWORD, "organization": "Acme"})
            for email in ("eve@example.com", "EVE@example.com")
        )
    )
    assert sorted(reply.status for reply in replies) == [201, 409]
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.organizations") == 1


async def test_a_wrong_password_and_an_unknown_address_are_told_apart_by_nobody(api: Api) -> None:
    await api.sign_up("ada@example.com")
    wrong = await api.log_in("ada@example.com", "not the password")
    unknown = await api.log_in("nobody@example.com")
    assert wrong.status == unknown.status == 401
    assert wrong["detail"] == unknown["detail"]


async def test_an_access_token_is_signed_by_a_published_key_and_lasts_15_minutes(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    token = account.api.token
    assert token is not None
    keys = jwt.PyJWKSet.from_dict(await api.jwks())
    kid = jwt.get_unverified_header(token)["kid"]
    payload = jwt.decode(token, keys[kid].key, algorithms=["EdDSA"], audience="tollgate")
    assert payload["sub"] == account.user_id
    assert payload["exp"] - payload["iat"] == 900
    api.clock.ahead = timedelta(minutes=15, seconds=1)
    assert (await account.api.get("/me")).status == 401


async def test_a_forged_token_opens_nothing(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    token = account.api.token
    assert token is not None
    header, payload, signature = token.split(".")

    def segment(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    kid = jwt.get_unverified_header(token)["kid"]
    forged = [
        f"{segment({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{payload}.",
        f"{segment({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{payload}.{signature}",
        f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{payload}.{signature}",
        f"{header}.{payload}.{signature[:-4]}AAAA",
        f"{segment({'alg': 'EdDSA', 'kid': 'sig_unknown'})}.{payload}.{signature}",
        f"{segment({'alg': 'EdDSA', 'kid': ['list']})}.{payload}.{signature}",
        "..",
        "a.b.c",
        "\xff.\xff.\xff",
    ]
    for each in forged:
        assert (await api.as_(each).get("/me")).status == 401, each


async def test_after_a_rotation_old_tokens_hold_until_they_expire_and_then_their_key_goes(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    operator = api.as_(await api.operator_token())
    kid = (await operator.post("/auth/signing-keys"))["kid"]
    assert (await account.api.get("/me")).status == 200
    published = [key["kid"] for key in (await api.jwks())["keys"]]
    assert published[0] == kid
    assert len(published) == 2
    tokens = await api.log_in("ada@example.com")
    assert jwt.get_unverified_header(tokens["access_token"])["kid"] == kid
    for _ in range(12):
        kid = (await operator.post("/auth/signing-keys"))["kid"]
    assert (await account.api.get("/me")).status == 200
    api.clock.ahead = timedelta(minutes=16)
    assert [key["kid"] for key in (await api.jwks())["keys"]] == [kid]


async def test_signing_keys_are_replaced_by_themselves_and_sealed_in_the_table(api: Api) -> None:
    await api.sign_up("ada@example.com")
    api.clock.ahead = timedelta(days=31)
    await api.log_in("ada@example.com")
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.signing_keys") == 2
    # Header, wrapped data key, nonce, the 32 bytes and their tag: nothing is kept as it is.
    smallest = await api.pool.fetchval("SELECT min(octet_length(sealed_private)) FROM accounts.signing_keys")
    assert smallest == 9 + (12 + 32 + 16) + 12 + 32 + 16


async def test_a_refresh_token_works_once_and_its_reuse_ends_the_whole_session(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    first = account.refresh_token
    second = await api.post("/auth/refresh", {"refresh_token": first})
    assert second.status == 200
    assert (await api.as_(second["access_token"]).get("/me")).status == 200
    stolen = await api.post("/auth/refresh", {"refresh_token": first})
    assert (stolen.status, stolen["code"]) == (401, "session_revoked")
    assert (await api.post("/auth/refresh", {"refresh_token": second["refresh_token"]})).status == 401
    assert (await api.as_(second["access_token"]).get("/me")).status == 401
    # Another session of the same user is not touched.
    assert (await api.log_in("ada@example.com")).status == 200


async def test_two_uses_of_a_refresh_token_at_once_are_a_reuse(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    replies = await asyncio.gather(
        *(api.post("/auth/refresh", {"refresh_token": account.refresh_token}) for _ in range(2))
    )
    assert sorted(reply.status for reply in replies) == [200, 401]
    assert await api.pool.fetchval("SELECT revoked_by FROM accounts.sessions") == "replay"


async def test_more_refreshes_at_once_than_the_database_has_connections_do_not_wait_for_each_other(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    tokens = [account.refresh_token] + [(await api.log_in("ada@example.com"))["refresh_token"] for _ in range(29)]
    # The keys are read again by each of them.
    api.clock.ahead = timedelta(minutes=1)
    async with asyncio.timeout(10):
        replies = await asyncio.gather(*(api.post("/auth/refresh", {"refresh_token": token}) for token in tokens))
    assert {reply.status for reply in replies} == {200}


async def test_a_session_ends_after_its_time_and_at_log_out(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    assert (await account.api.post("/auth/logout")).status == 204
    assert (await account.api.get("/me")).status == 401
    assert (await api.post("/auth/refresh", {"refresh_token": account.refresh_token})).status == 401
    tokens = await api.log_in("ada@example.com")
    api.clock.ahead = timedelta(days=30, seconds=1)
    assert (await api.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]})).status == 401


async def test_the_link_in_the_mail_verifies_the_address_once(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    assert (await account.api.get("/me"))["email_verified_at"] is None
    token = api.mailbox.token("ada@example.com")
    assert api.mailbox.mails[0].link.startswith("http://gateway.test/verify-email#token=")
    assert (await api.post("/auth/verify-email", {"token": token}))["email"] == "ada@example.com"
    assert (await account.api.get("/me"))["email_verified_at"] is not None
    assert (await api.post("/auth/verify-email", {"token": token})).pointers == ["/token"]


async def test_every_link_in_a_mail_leads_to_a_page_that_admits_its_own_script_alone(api: Api) -> None:
    owner = await api.sign_up("ada@example.com")
    await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    await owner.api.post(f"{owner.org}/invitations", {"email": "bob@example.com", "role": "viewer"})
    links = {mail.link.partition("#")[0] for mail in api.mailbox.mails}
    assert len(links) == 3
    for link in links:
        async with api.session.get(link.replace("http://gateway.test", api.url)) as response:
            page = await response.text()
            assert response.status == 200
            policy = response.headers["Content-Security-Policy"]
        [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = b64encode(sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "://" not in page


async def test_what_the_pages_send_is_what_the_api_reads(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    verify, reset = (re.search(r'post\("api/v1(\S+)"', page.html) for page in (VERIFY_EMAIL, RESET_PASSWORD))
    assert verify
    assert reset
    token = re.search(r"token=(.*)", api.mailbox.mails[0].link)
    assert token
    assert (await api.post(verify[1], {"token": token[1]})).status == 200
    done = await api.post(reset[1], {"token": api.mailbox.token("ada@example.com"), "password": "another battery"})
    assert done.status == 204
    assert (await api.log_in(account.email, "another battery")).status == 200


async def test_a_reset_of_an_address_nobody_has_verified_ends_what_was_made_with_it(api: Api) -> None:
    squatter = await api.sign_up("ada@example.com")
    key = await squatter.api.post(f"{squatter.org}/keys", {"name": "kept"})
    token = await squatter.api.post(f"{squatter.org}/tokens", {"name": "kept", "scopes": ["keys:write"]})
    await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    await api.post(
        "/auth/password-resets", {"token": api.mailbox.token("ada@example.com"), "password": "another battery"}
    )
    owner = api.as_((await api.log_in("ada@example.com", "another battery"))["access_token"])
    assert (await owner.get(f"{squatter.org}/keys/{key['id']}"))["disabled"] is True
    assert (await api.as_(token["token"]).post(f"{squatter.org}/keys", {"name": "more"})).status == 401


async def test_an_unverified_address_blocks_a_log_in_only_where_that_is_set(pool: asyncpg.Pool) -> None:
    async with running_api(pool, require_verified_email=True) as api:
        await api.post("/auth/register", {"email": "ada@example.com", "password": PASSWORD, "organization": "Acme"})
        assert (await api.log_in("ada@example.com")).status == 403
        await api.post("/auth/verify-email", {"token": api.mailbox.token("ada@example.com")})
        assert (await api.log_in("ada@example.com")).status == 200


async def test_a_password_is_reset_by_mail_which_ends_every_session(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    known = await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    unknown = await api.post("/auth/password-reset-mails", {"email": "nobody@example.com"})
    assert known.status == unknown.status == 202
    assert known.text == unknown.text
    token = api.mailbox.token("ada@example.com")
    body = {"token": token, "password": "another good password"}
    assert (await api.post("/auth/password-resets", body)).status == 204
    assert (await api.post("/auth/password-resets", body)).pointers == ["/token"]
    assert (await account.api.get("/me")).status == 401
    assert (await api.log_in("ada@example.com")).status == 401
    assert (await api.log_in("ada@example.com", "another good password")).status == 200


async def test_a_mailed_token_is_good_for_its_purpose_and_time_only(api: Api) -> None:
    await api.sign_up("ada@example.com")
    verification = api.mailbox.token("ada@example.com")
    reset = await api.post("/auth/password-resets", {"token": verification, "password": PASSWORD})
    assert reset.status == 422
    await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    api.clock.ahead = timedelta(hours=1, seconds=1)
    late = await api.post(
        "/auth/password-resets", {"token": api.mailbox.token("ada@example.com"), "password": PASSWORD}
    )
    assert late.status == 422


async def test_changing_the_password_needs_the_old_one_and_ends_every_session(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    wrong = await account.api.post("/me/password", {"current_password": "x", "new_password": "a new password"})
    assert wrong.pointers == ["/current_password"]
    changed = await account.api.post("/me/password", {"current_password": PASSWORD, "new_password": "a new password"})
    assert changed.status == 204
    assert (await account.api.get("/me")).status == 401
    assert (await api.log_in("ada@example.com", "a new password")).status == 200


async def test_the_eleventh_wrong_password_is_throttled_by_every_replica(pool: asyncpg.Pool, tmp_path: Path) -> None:
    async with running_valkey(tmp_path / "valkey") as url:
        one, other = RedisCounters(SecretStr(url)), RedisCounters(SecretStr(url))
        async with running_api(pool, counters=one) as first, running_api(pool, counters=other) as second:
            await first.sign_up("ada@example.com")
            for api in (first, second) * 5:
                assert (await api.log_in("ada@example.com", "wrong")).status == 401
            for api in (first, second):
                refused = await api.log_in("ADA@example.com")
                assert refused.status == 429
                assert 1 <= int(refused.headers["Retry-After"]) <= 900
            assert (await first.log_in("bob@example.com")).status == 401
        await one.close()
        await other.close()


async def test_a_right_password_forgets_the_wrong_ones(api: Api) -> None:
    await api.sign_up("ada@example.com")
    for _ in range(3):
        for _ in range(9):
            await api.log_in("ada@example.com", "wrong")
        assert (await api.log_in("ada@example.com")).status == 200


async def test_without_redis_a_log_in_works_and_each_process_throttles_for_itself(
    pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with running_valkey(tmp_path / "valkey") as url:
        counters = RedisCounters(SecretStr(url))
    # The server is gone now.
    async with running_api(pool, counters=counters) as api:
        await api.sign_up("ada@example.com")
        for _ in range(10):
            assert (await api.log_in("ada@example.com", "wrong")).status == 401
        assert (await api.log_in("ada@example.com")).status == 429
    await counters.close()


async def test_more_password_changes_than_the_database_has_connections_keep_nobody_else_waiting(database: str) -> None:
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=3) as pool,
        # A quarter of a second each, two at a time.
        running_api(pool, hash_rounds=40_000) as api,
    ):
        accounts = [await api.sign_up(f"{name}@example.com") for name in ("ada", "bob", "eve", "kim")]
        wrong = {"current_password": "x", "new_password": "a new password"}
        changing = [asyncio.create_task(each.api.post("/me/password", wrong)) for each in accounts]
        await asyncio.sleep(0.1)
        assert (await accounts[0].api.get("/me")).status == 200
        assert not any(each.done() for each in changing[2:])
        assert [(await each).status for each in changing] == [422] * 4


async def test_who_would_wait_behind_too_many_passwords_is_sent_away(pool: asyncpg.Pool) -> None:
    async with running_api(pool, hash_rounds=5_000) as api:
        replies = await asyncio.gather(*(api.log_in(f"{number}@example.com") for number in range(90)))
        assert {each.status for each in replies} == {401, 429}
        assert sum(each.status == 401 for each in replies) >= 66
        assert (await api.log_in("ada@example.com")).status == 401


async def test_a_stranger_who_guesses_passwords_keeps_the_owner_out_of_nothing(api: Api) -> None:
    await api.sign_up("ada@example.com")
    async with api.from_elsewhere("127.0.0.2") as stranger:
        for _ in range(10):
            assert (await stranger.log_in("ada@example.com", "wrong")).status == 401
        assert (await stranger.log_in("ada@example.com", "wrong")).status == 429
        assert (await api.log_in("ada@example.com")).status == 200
        # What the owner does forgives the stranger nothing.
        assert (await stranger.log_in("ada@example.com", "wrong")).status == 429


async def test_guesses_from_very_many_addresses_are_throttled_and_a_reset_lets_the_owner_in(api: Api) -> None:
    await api.sign_up("ada@example.com")
    for number in range(30):
        async with api.from_elsewhere(f"127.0.1.{number + 1}") as stranger:
            replies = await asyncio.gather(*(stranger.log_in("ada@example.com", "wrong") for _ in range(10)))
            assert {each.status for each in replies} == {401}
    assert (await api.log_in("ada@example.com")).status == 429
    assert (await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})).status == 202
    reset = {"token": api.mailbox.token("ada@example.com"), "password": "a new password"}
    assert (await api.post("/auth/password-resets", reset)).status == 204
    assert (await api.log_in("ada@example.com", "a new password")).status == 200


async def test_log_ins_at_issuers_and_resets_use_up_no_log_in_with_a_password(api: Api) -> None:
    await api.sign_up("ada@example.com")
    nobody = {"token": "x" * 43, "password": "a new password"}
    resets = []
    for _ in range(301):
        assert (await api.post("/auth/oidc/log-ins", {"issuer": "nope"})).status == 422
        resets.append(await api.post("/auth/password-resets", nobody))
    assert resets[-1].status == 429
    assert (await api.log_in("ada@example.com")).status == 200


async def test_one_address_gets_five_mails_an_hour_and_nobody_is_told(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    sent = len(api.mailbox.mails)
    replies = [await api.post("/auth/password-reset-mails", {"email": "ADA@example.com"}) for _ in range(9)]
    assert {(each.status, each.text) for each in replies} == {(202, "")}
    assert len(api.mailbox.mails) - sent == 5
    for _ in range(9):
        assert (await account.api.post("/auth/verification-mails")).status == 202
    assert len(api.mailbox.mails) - sent == 10
    # The last link that was sent is still good.
    reset = {
        "token": next(_token(mail) for mail in reversed(api.mailbox.mails) if mail.subject == "Reset your password")
    }
    assert (await api.post("/auth/password-resets", {**reset, "password": "a new password"})).status == 204


async def test_a_changed_password_voids_the_reset_that_was_mailed_before(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    await api.post("/auth/password-reset-mails", {"email": "ada@example.com"})
    reset = {"token": api.mailbox.token("ada@example.com"), "password": "of a thief"}
    change = {"current_password": PASSWORD, "new_password": "a new password"}
    assert (await account.api.post("/me/password", change)).status == 204
    assert (await api.post("/auth/password-resets", reset)).pointers == ["/token"]


def _token(mail: Mail) -> str:
    return mail.link.rpartition("token=")[2]


async def test_a_stranger_sends_little(api: Api) -> None:
    body = {"email": "ada@example.com", "password": "x" * 20_000}
    assert (await api.post("/auth/login", body)).status == 413


async def test_a_password_that_is_changed_while_it_is_being_checked_is_not_changed_again(api: Api) -> None:
    account = await api.sign_up("ada@example.com")
    bodies = [{"current_password": PASSWORD, "new_password": f"another battery {n}"} for n in range(2)]
    replies = await asyncio.gather(*(account.api.post("/me/password", body) for body in bodies))
    assert min(reply.status for reply in replies) == 204
    assert [reply.status for reply in replies].count(204) == 1


async def test_behind_a_trusted_proxy_guesses_count_for_who_makes_them(pool: asyncpg.Pool) -> None:
    def from_(address: str) -> dict[str, str]:
        # The proxy appends who is connected to it; what stands before is the client's own word.
        return {"X-Forwarded-For": f"192.0.2.{secrets.randbelow(250)}, {address}"}

    async def guess(api: Api, address: str) -> int:
        body = {"email": "ada@example.com", "password": "wrong"}
        return (await api.post("/auth/login", body, headers=from_(address))).status

    async with running_api(pool, trusted_proxies=parse_networks("127.0.0.1")) as api:
        await api.sign_up("ada@example.com")
        assert [await guess(api, "203.0.113.7") for _ in range(11)] == [401] * 10 + [429]
        assert await guess(api, "203.0.113.8") == 401
        async with api.from_elsewhere("127.0.0.2") as stranger:
            assert [await guess(stranger, f"203.0.113.{number}") for number in range(11)] == [401] * 10 + [429]
