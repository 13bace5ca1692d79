"""A change of a key, followed to every process that keeps keys in memory: real ext_authz processes on one database."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway_core.contract import Channel, Header, Peer
from local_stack.ports import free_port
from tests.support.admission import check_request
from tests.support.api import PEPPER, Account, Api, Reply
from tests.support.catalog_api import PROVIDER, put
from tests.support.planes import Certificates
from tests.support.processes import running_python
from tests.support.stack import eventually
from wire.ext_authz_pb2 import CheckRequest, CheckResponse

BOUND_S = 1.0


@dataclass(frozen=True)
class Authorizer:
    """One ext_authz process, asked as Envoy asks."""

    process: asyncio.subprocess.Process
    ask: Callable[[CheckRequest], Awaitable[CheckResponse]]

    async def opens(self, key: str) -> bool:
        """Whether a key gets the list of models."""
        headers = {Header.REQUEST_ID: "r", Header.AUTHORIZATION: f"Bearer {key}"}
        mode = key.split("-")[2]
        response = await self.ask(check_request({"endpoint": "models", "mode": mode}, headers))
        return response.WhichOneof("http_response") == "ok_response"


@asynccontextmanager
async def authorizer(dsn: str, certificates: Certificates) -> AsyncIterator[Authorizer]:
    port, metrics_port = free_port(), free_port()
    async with (
        running_python(
            "ext_authz",
            ready=f"http://127.0.0.1:{metrics_port}/readyz",
            TOLLGATE_POSTGRES_DSN=dsn,
            TOLLGATE_API_KEY_PEPPER=PEPPER.get_secret_value(),
            TOLLGATE_EXT_AUTHZ_PORT=str(port),
            TOLLGATE_EXT_AUTHZ_METRICS_PORT=str(metrics_port),
            **certificates.environment("EXT_AUTHZ", Peer.EXT_AUTHZ),
        ) as process,
        certificates.channel(port, Peer.EXT_AUTHZ, caller=certificates.of(Peer.ENVOY)) as channel,
    ):
        call = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )

        async def ask(request: CheckRequest) -> CheckResponse:
            answer: CheckResponse = await call(request)
            return answer

        yield Authorizer(process, ask)


@pytest.fixture
async def two(database: str, owner: Account, tmp_path: Path) -> AsyncIterator[list[Authorizer]]:
    certificates = Certificates.issued(tmp_path)
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(authorizer(database, certificates)) for _ in range(2)]
        key = await owner.api.post(f"{owner.org}/keys", {"name": "another"})
        await propagation(owner, key["id"], lambda reply: len(reply["authorizers"]) == 2 and reply["propagated"])
        yield running


async def propagation(
    owner: Account, key_id: str, is_good: Callable[[Reply], bool], *, deadline_s: float = 10
) -> Reply:
    """What the API says once it is good."""

    async def ask() -> Reply | None:
        reply = await owner.api.get(f"{owner.org}/keys/{key_id}/propagation")
        assert reply.status == 200
        return reply if is_good(reply) else None

    return await eventually(ask, deadline_s=deadline_s)


async def refused_everywhere(running: list[Authorizer], key: str) -> None:
    async def is_refused() -> bool:
        return not any([await each.opens(key) for each in running])

    await eventually(is_refused, deadline_s=BOUND_S)


async def test_every_kind_of_change_is_taken_up_by_every_process_within_a_second_and_is_seen_to_be(
    owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    path = f"{owner.org}/keys/{made['id']}"
    numbers = []

    async def follow(change: Callable[[], Awaitable[Reply]], refused: str | None) -> Reply:
        for each in two:
            assert refused is None or await each.opens(refused)
        answer = await change()
        assert answer.status < 300, answer.text
        began = time.monotonic()
        if refused is not None:
            await refused_everywhere(two, refused)
        seen = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]), deadline_s=BOUND_S)
        assert time.monotonic() - began < BOUND_S
        assert len(seen["authorizers"]) == 2
        assert all(each["taken_up"] and 0 <= each["took_ms"] < 1000 for each in seen["authorizers"])
        numbers.append(seen["change_number"])
        return answer

    await follow(lambda: owner.api.patch(path, {"disabled": True}), made["key"])
    await follow(lambda: owner.api.patch(path, {"disabled": False}), None)
    rotated = await follow(lambda: owner.api.post(f"{path}/rotate", {"overlap_s": 0}), made["key"])
    await follow(lambda: owner.api.patch(path, {"expires_at": "2020-01-01T00:00:00Z"}), rotated["key"])
    await follow(lambda: owner.api.patch(path, {"expires_at": None}), None)
    await follow(lambda: owner.api.delete(path), rotated["key"])
    assert numbers == sorted(set(numbers))
    assert (await owner.api.get(f"{owner.org}/keys/key_none/propagation")).status == 404


async def test_closing_an_organisation_is_a_change_of_each_of_its_keys(
    api: Api, owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    for each in two:
        assert await each.opens(made["key"])
    before = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
    operator = api.as_(await api.operator_token())
    assert (await operator.patch(owner.org, {"disabled": True})).status == 200
    await refused_everywhere(two, made["key"])
    after = await operator.get(f"{owner.org}/keys/{made['id']}/propagation")
    assert after["change_number"] > before["change_number"]


async def test_other_budgets_or_limits_of_a_project_and_another_time_zone_are_changes_of_each_of_its_keys(
    owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    before = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
    for path, change in (
        (f"{owner.org}/projects/{owner.project_id}", {"budget_per_day_usd": "1"}),
        (f"{owner.org}/projects/{owner.project_id}", {"requests_per_minute_max": 1000}),
        (owner.org, {"time_zone": "Asia/Kathmandu"}),
    ):
        for each in two:
            assert await each.opens(made["key"])
        assert (await owner.api.patch(path, change)).status == 200
        after = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]), deadline_s=BOUND_S)
        assert after["change_number"] > before["change_number"]
        assert all(0 <= each["took_ms"] < 1000 for each in after["authorizers"])
        before = after


async def test_closing_an_organisation_with_ten_thousand_keys_takes_a_moment_and_holds_nobody_up(
    api: Api, owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    other = await api.sign_up("other@example.com")
    others = await other.api.post(f"{other.org}/keys", {"name": "elsewhere"})
    await many_keys(api, owner, 9_998)
    await propagation(owner, f"key_{owner.org_id}1", lambda reply: bool(reply["propagated"]))
    refused = await owner.api.post(f"{owner.org}/keys", {"name": "one too many"})
    assert (refused.status, refused["code"]) == (409, "conflict")
    operator = api.as_(await api.operator_token())
    began = time.monotonic()
    closed, changed = await asyncio.gather(
        operator.patch(owner.org, {"disabled": True}),
        other.api.patch(f"{other.org}/keys/{others['id']}", {"disabled": True}),
    )
    assert time.monotonic() - began < BOUND_S
    assert (closed.status, changed.status) == (200, 200)
    for key in (made, others):
        await refused_everywhere(two, key["key"])
    numbers = set()
    for account, key in ((owner, made), (other, others)):
        seen = await propagation(account, key["id"], lambda reply: bool(reply["propagated"]), deadline_s=BOUND_S)
        assert all(0 <= each["took_ms"] < 1000 for each in seen["authorizers"]), seen
        numbers.add(seen["change_number"])
    assert len(numbers) == 2


async def test_what_a_squatter_has_made_ends_in_a_moment_however_many_keys_it_is(api: Api, owner: Account) -> None:
    await many_keys(api, owner, 10_000)
    await owner.api.post("/auth/password-reset-mails", {"email": owner.email})
    began = time.monotonic()
    body = {"token": api.mailbox.token(owner.email), "password": "another horse battery"}
    assert (await api.post("/auth/password-resets", body)).status == 204
    assert time.monotonic() - began < 3 * BOUND_S
    open_ = "SELECT count(*) FROM accounts.api_keys WHERE org_id = $1 AND disabled_at IS NULL"
    assert await api.pool.fetchval(open_, owner.org_id) == 0
    numbers = "SELECT count(DISTINCT change_number) FROM accounts.api_keys WHERE org_id = $1"
    assert await api.pool.fetchval(numbers, owner.org_id) == 1


async def many_keys(api: Api, owner: Account, number: int) -> None:
    """So many more keys of an organisation, made by its owner."""
    await api.pool.execute(
        """
        INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, key_hash, created_by)
        SELECT 'key_' || $1 || n, $1, $2, 'many', sha256(($1 || n)::bytea), $3 FROM generate_series(1, $4) AS n
        """,
        owner.org_id,
        owner.project_id,
        owner.user_id,
        number,
    )


async def test_a_number_that_nobody_gave_out_and_announcements_that_are_none_corrupt_nothing(
    api: Api, owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    before = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
    for payload in ("", "junk", f"{10**18 - 1}:{'ab' * 32}", f"{10**17}:org_x", f"{before['change_number'] + 1}:org_x"):
        await api.pool.execute("SELECT pg_notify('api_key_changed', $1)", payload)
    await asyncio.sleep(0.3)
    two[1].process.send_signal(signal.SIGSTOP)
    try:
        assert (await owner.api.patch(f"{owner.org}/keys/{made['id']}", {"disabled": True})).status == 200
        seen = await propagation(
            owner, made["id"], lambda reply: [each["taken_up"] for each in reply["authorizers"]].count(True) == 1
        )
        assert not seen["propagated"]
    finally:
        two[1].process.send_signal(signal.SIGCONT)
    await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
    await refused_everywhere(two, made["key"])


async def test_a_process_that_does_not_take_up_changes_is_seen_and_one_that_is_gone_does_not_count(
    owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    two[1].process.send_signal(signal.SIGSTOP)
    try:
        assert (await owner.api.patch(f"{owner.org}/keys/{made['id']}", {"name": "second"})).status == 200
        seen = await propagation(
            owner, made["id"], lambda reply: [each["taken_up"] for each in reply["authorizers"]].count(True) == 1
        )
        assert not seen["propagated"]
        assert [each["took_ms"] is None for each in seen["authorizers"]].count(True) == 1
        # It says nothing for some seconds: gone, or able to admit nobody.
        alone = await propagation(owner, made["id"], lambda reply: len(reply["authorizers"]) == 1)
        assert alone["propagated"]
    finally:
        two[1].process.send_signal(signal.SIGCONT)
    # Back again, it takes up what it has missed, and it took it that long.
    back = await propagation(owner, made["id"], lambda reply: len(reply["authorizers"]) == 2 and reply["propagated"])
    assert max(each["took_ms"] for each in back["authorizers"]) > 3000
    # One that is asked to end says goodbye.
    two[0].process.terminate()
    await propagation(owner, made["id"], lambda reply: len(reply["authorizers"]) == 1, deadline_s=4)


async def test_a_process_whose_connection_for_announcements_is_cut_misses_nothing(
    api: Api, owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    for _ in range(5):
        cut = await api.pool.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'ext_authz listener' AND datname = current_database()"
        )
        assert cut <= 2
        for each in two:
            assert await each.opens(made["key"])
        # Announced while nobody listens, or while they are coming back.
        path = f"{owner.org}/keys/{made['id']}"
        assert (await owner.api.patch(path, {"disabled": True})).status == 200
        await refused_everywhere(two, made["key"])
        await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
        assert (await owner.api.patch(path, {"disabled": False})).status == 200
        await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))


async def test_a_change_that_is_not_committed_yet_holds_up_those_after_it_and_not_the_reports(
    api: Api, owner: Account, two: list[Authorizer]
) -> None:
    keys = [await owner.api.post(f"{owner.org}/keys", {"name": name}) for name in ("slow", "fast")]
    slow_id, fast_id = (key["id"] for key in keys)
    async with api.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE accounts.api_keys SET disabled_at = now() WHERE key_id = $1", slow_id)
        fast = asyncio.create_task(owner.api.patch(f"{owner.org}/keys/{fast_id}", {"name": "x"}))
        await asyncio.sleep(0.3)
        assert not fast.done()
        await transaction.commit()
        assert (await fast).status == 200
    numbers = [
        (await propagation(owner, each, lambda reply: bool(reply["propagated"])))["change_number"]
        for each in (slow_id, fast_id)
    ]
    assert numbers[0] < numbers[1]
    await refused_everywhere(two, keys[0]["key"])


async def test_the_last_use_of_a_key_is_written_within_seconds_and_is_no_change_of_it(
    owner: Account, two: list[Authorizer]
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first", "mode": "test"})
    path = f"{owner.org}/keys/{made['id']}"
    before = await propagation(owner, made["id"], lambda reply: bool(reply["propagated"]))
    for each in two:
        assert await each.opens(made["key"])

    async def used() -> Reply | None:
        reply = await owner.api.get(path)
        return reply if reply["last_used_at"] is not None else None

    reply = await eventually(used)
    assert reply["revision"] == made["revision"]
    after = await owner.api.get(f"{path}/propagation")
    assert after["change_number"] == before["change_number"]


async def test_a_key_that_was_used_a_moment_ago_is_not_written_again(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})

    async def touch(seconds: int) -> object:
        await api.pool.execute(
            "SELECT accounts.touch_keys(ARRAY[$1, 'key_none'], ARRAY[t, t])"
            " FROM (SELECT timestamptz '2030-01-01' + $2 * interval '1 second' AS t) AS at",
            made["id"],
            seconds,
        )
        return (await owner.api.get(f"{owner.org}/keys/{made['id']}"))["last_used_at"]

    first = await touch(0)
    assert await touch(30) == first
    # What an older use says, heard late, takes nothing back.
    assert await touch(-3600) == first
    assert await touch(61) != first


async def test_a_use_is_not_kept_waiting_by_somebody_who_changes_the_key(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    async with api.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE accounts.api_keys SET name = 'x' WHERE key_id = $1", made["id"])
        async with asyncio.timeout(2):
            await api.pool.execute("SELECT accounts.touch_keys(ARRAY[$1], ARRAY[now()])", made["id"])


async def test_a_change_of_the_catalogue_is_served_and_told_within_a_second_by_every_process(
    api: Api, two: list[Authorizer]
) -> None:
    assert len(two) == 2
    operator = api.as_(await api.operator_token())
    heard: asyncio.Queue[str] = asyncio.Queue(100)
    async with api.pool.acquire() as connection:
        await connection.add_listener(Channel.AUTHORIZER, lambda *heard_: heard.put_nowait(str(heard_[3])))
        made = await put(operator, "/providers/one", PROVIDER)
        async with asyncio.timeout(BOUND_S):
            told = [await heard.get(), await heard.get()]
        await connection.reset()
    assert told == [str(made["revision"])] * 2
    readers = (await operator.get("/nodes"))["authorizers"]
    assert [(each["catalog_revision"], each["lags"]) for each in readers] == [(made["revision"], False)] * 2


async def test_a_process_that_starts_is_waited_for_from_before_it_reads_the_catalogue(
    database: str, api: Api, tmp_path: Path
) -> None:
    seen: list[list[int]] = []
    async with api.pool.acquire() as connection, connection.transaction():
        # Reading has to wait for this; what it does before that can be seen.
        await connection.execute("LOCK TABLE catalog.revisions")
        starting = asyncio.create_task(_start_and_stop(database, Certificates.issued(tmp_path)))

        async def registered() -> bool:
            seen.append(await _revisions_served(api))
            return bool(seen[-1])

        await eventually(registered)
        assert seen[-1] == [0]
    await starting
    # It has said goodbye.
    assert await _revisions_served(api) == []


async def _start_and_stop(database: str, certificates: Certificates) -> None:
    async with authorizer(database, certificates):
        pass


async def _revisions_served(api: Api) -> list[int]:
    rows = await api.pool.fetch("SELECT catalog_revision FROM accounts.live_authorizers")
    return [row["catalog_revision"] for row in rows]
