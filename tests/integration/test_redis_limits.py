"""The scripts that count keys' requests, on a real Valkey."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from ext_authz.redis_limits import LEASE_PART, RedisLimits
from ext_authz.reservations import Amended, Ended, Exceeded, Expected, Limit, Reservation, Running
from ext_authz.shared_counts import CountsUnavailableError
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import Limits, Scope, ScopedLimits, scoped
from local_stack.valkey import running_valkey

ORG = OrgId("org_1")


def key(limits: Limits) -> tuple[ScopedLimits, ...]:
    return scoped(Scope.KEY, "key_1", limits)


async def reserved(limits: RedisLimits, number: int, most: Limits, tokens: int = 0) -> Reservation:
    found = await limits.reserve(ORG, RequestId(f"request {number}"), key(most), tokens=tokens, uses=1)
    assert isinstance(found, Reservation)
    return found


async def refused(limits: RedisLimits, number: int, most: Limits, tokens: int = 0) -> Exceeded:
    found = await limits.reserve(ORG, RequestId(f"request {number}"), key(most), tokens=tokens, uses=1)
    assert isinstance(found, Exceeded)
    return found


async def finish(limits: RedisLimits, number: int, found: Reservation, tokens: int) -> None:
    await limits.tell(ORG, Ended(found.tallies, RequestId(f"request {number}"), found.at, tokens - found.tokens))


async def test_of_many_requests_at_once_over_two_processes_just_as_many_pass_as_the_limit_says(
    empty: SecretStr,
) -> None:
    processes = [RedisLimits(empty), RedisLimits(empty)]
    most = Limits(requests_per_minute=37)
    found = await asyncio.gather(
        *(
            processes[number % 2].reserve(ORG, RequestId(str(number)), key(most), tokens=0, uses=1)
            for number in range(300)
        )
    )
    assert sum(isinstance(each, Reservation) for each in found) == 37
    beyond = [each for each in found if isinstance(each, Exceeded)]
    assert {(each.limit, each.room.requests) for each in beyond} == {(Limit.REQUESTS, 37)}
    assert all(55 < each.retry_after_s <= 61 for each in beyond)
    for process in processes:
        await process.close()


async def test_requests_that_ask_for_absurdly_much_are_counted_like_any_other(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty), Limits(requests_per_minute=100_000)
    asked = Expected.of(key(most), body_bytes=1, output_tokens=10**19, output_tokens_max=10**19)
    for number in range(20):
        found = await limits.reserve(ORG, RequestId(f"request {number}"), key(most), tokens=asked.tokens, uses=256)
        assert isinstance(found, Reservation)
        assert found.uses == 256
        await limits.tell(ORG, Amended(found.tallies, found.at, 0, -found.uses * found.tokens))
    await limits.close()


async def test_a_request_no_longer_counts_when_the_window_has_passed_over_it(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty, window_s=2), Limits(requests_per_minute=1)
    await reserved(limits, 1, most)
    waits = (await refused(limits, 2, most)).retry_after_s
    assert 1 <= waits <= 2
    await asyncio.sleep(waits)
    await reserved(limits, 3, most)
    await limits.close()


async def test_a_request_that_is_asked_about_twice_counts_once(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty), Limits(requests_per_minute=2, tokens_per_minute=10, concurrency=2)
    for _ in range(3):
        assert (await reserved(limits, 1, most, tokens=5)).rooms[0].requests == 1
    assert (await reserved(limits, 2, most, tokens=5)).rooms[0].tokens == 10
    await limits.close()


async def test_a_request_that_was_asked_about_twice_is_put_right_where_it_counts(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty), Limits(tokens_per_minute=1000)
    first = await reserved(limits, 1, most, tokens=600)
    await asyncio.sleep(1.1)
    again = await reserved(limits, 1, most, tokens=600)
    assert again.at == first.at
    await finish(limits, 1, again, tokens=100)
    assert (await reserved(limits, 2, most, tokens=0)).rooms[0].tokens == 100
    await limits.close()


async def test_tokens_count_as_expected_until_a_request_is_over_and_then_as_used(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty), Limits(tokens_per_minute=1000)
    first = await reserved(limits, 1, most, tokens=900)
    assert (await refused(limits, 2, most, tokens=200)).limit is Limit.TOKENS
    await finish(limits, 1, first, tokens=100)
    assert (await reserved(limits, 2, most, tokens=200)).rooms[0].tokens == 300
    await finish(limits, 1, first, tokens=0)  # told again
    assert (await reserved(limits, 3, most, tokens=0)).rooms[0].tokens == 300
    await limits.close()


async def test_what_a_long_request_used_beyond_expectation_counts_when_it_is_over(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty, window_s=2), Limits(tokens_per_minute=1000)
    first = await reserved(limits, 1, most, tokens=10)
    await asyncio.sleep(3.1)
    # What was expected of it no longer counts.
    await finish(limits, 1, first, tokens=1010)
    assert (await refused(limits, 2, most, tokens=1)).room.tokens == 1000
    await limits.close()


async def test_as_many_run_at_once_as_the_limit_says_and_one_more_when_one_is_over(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty), Limits(concurrency=2)
    first = await reserved(limits, 1, most)
    await reserved(limits, 2, most)
    assert (await refused(limits, 3, most)).limit is Limit.CONCURRENCY
    await finish(limits, 1, first, tokens=0)
    await reserved(limits, 3, most)
    assert (await refused(limits, 4, most)).retry_after_s == 1
    await limits.close()


async def test_a_request_that_is_not_heard_of_is_given_up_and_one_that_is_heard_of_is_not(empty: SecretStr) -> None:
    limits, most = RedisLimits(empty, open_s=3), Limits(concurrency=2)
    first = await reserved(limits, 1, most)
    await reserved(limits, 2, most)
    await asyncio.sleep(1.6)
    await limits.tell(ORG, Running(first.tallies, RequestId("request 1")))
    await limits.tell(ORG, Running(first.tallies, RequestId("never admitted")))
    await asyncio.sleep(1.6)
    await reserved(limits, 3, most)
    assert (await refused(limits, 4, most)).limit is Limit.CONCURRENCY
    await limits.close()


async def test_nothing_is_left_of_a_key_that_is_not_used(empty: SecretStr) -> None:
    limits = RedisLimits(empty, window_s=1, open_s=1)
    await reserved(limits, 1, Limits(requests_per_minute=1))
    redis = Redis.from_url(empty.get_secret_value())
    assert await redis.dbsize() == 2
    await asyncio.sleep(3)
    assert await redis.dbsize() == 0
    await redis.aclose()
    await limits.close()


async def test_other_limits_hold_at_once(empty: SecretStr) -> None:
    limits = RedisLimits(empty)
    await reserved(limits, 1, Limits(requests_per_minute=1))
    await refused(limits, 2, Limits(requests_per_minute=1))
    await reserved(limits, 2, Limits(requests_per_minute=2))
    await limits.close()


async def test_a_valkey_that_is_gone_is_trouble_at_once(tmp_path: Path) -> None:
    async with running_valkey(tmp_path / "valkey") as running:
        limits = RedisLimits(SecretStr(running))
        await reserved(limits, 1, Limits(requests_per_minute=5))
    with pytest.raises(CountsUnavailableError):
        async with asyncio.timeout(1):
            await limits.reserve(ORG, RequestId("2"), key(Limits(requests_per_minute=5)), tokens=0, uses=1)
    await limits.close()


def of_all(*, key_: int, org: int, model: int) -> tuple[ScopedLimits, ...]:
    return (
        *key(Limits(requests_per_minute=key_)),
        *scoped(Scope.ORGANIZATION, ORG, Limits(requests_per_minute=org)),
        *scoped(Scope.MODEL, "m", Limits(requests_per_minute=model)),
    )


async def test_a_request_counts_against_all_its_limits_or_against_none(empty: SecretStr) -> None:
    limits = RedisLimits(empty)

    async def ask(number: int, most: tuple[ScopedLimits, ...]) -> Reservation | Exceeded:
        return await limits.reserve(ORG, RequestId(f"request {number}"), most, tokens=10, uses=1)

    for number, (most, scope) in enumerate(
        (
            (of_all(key_=1, org=9, model=9), Scope.KEY),
            (of_all(key_=9, org=1, model=9), Scope.ORGANIZATION),
            (of_all(key_=9, org=9, model=1), Scope.MODEL),
        )
    ):
        if number == 0:
            assert isinstance(await ask(0, of_all(key_=9, org=9, model=9)), Reservation)
        found = await ask(1 + number, most)
        assert isinstance(found, Exceeded)
        assert found.scope is scope
    left = await ask(9, of_all(key_=9, org=9, model=9))
    assert isinstance(left, Reservation)
    assert [(room.requests, room.tokens) for room in left.rooms] == [(2, 20)] * 3
    await limits.tell(ORG, Ended(left.tallies, RequestId("request 9"), left.at, -10))
    last = await ask(10, of_all(key_=9, org=9, model=9))
    assert isinstance(last, Reservation)
    assert [(room.requests, room.tokens) for room in last.rooms] == [(3, 20)] * 3
    await limits.close()


async def test_many_alike_count_at_once_but_no_more_than_a_part_of_what_is_left(empty: SecretStr) -> None:
    limits = RedisLimits(empty)
    most = key(Limits(requests_per_minute=1000, tokens_per_minute=1_000_000))
    found = await limits.reserve(ORG, RequestId("1"), most, tokens=100, uses=256)
    assert isinstance(found, Reservation)
    assert found.uses == 1 + 999 // LEASE_PART == 16
    assert [(room.requests, room.tokens) for room in found.rooms] == [(16, 1600)]
    few_tokens = key(Limits(requests_per_minute=1000, tokens_per_minute=21_700))
    other = await limits.reserve(ORG, RequestId("2"), few_tokens, tokens=100, uses=256)
    assert isinstance(other, Reservation)
    assert other.uses == 1 + 200 // LEASE_PART
    near_its_end = await limits.reserve(ORG, RequestId("4"), key(Limits(requests_per_minute=83)), tokens=0, uses=256)
    assert isinstance(near_its_end, Reservation)
    assert near_its_end.uses == 1
    at_once = await limits.reserve(ORG, RequestId("3"), key(Limits(100, None, 9)), tokens=0, uses=256)
    assert isinstance(at_once, Reservation)
    assert at_once.uses == 1
    await limits.close()


async def test_what_is_not_spent_of_many_counts_no_more_and_what_they_used_counts_as_it_was(empty: SecretStr) -> None:
    limits = RedisLimits(empty)
    most = key(Limits(requests_per_minute=1000))
    found = await limits.reserve(ORG, RequestId("1"), most, tokens=100, uses=10)
    assert isinstance(found, Reservation)
    await limits.tell(ORG, Amended(found.tallies, found.at, -4, -400))
    await limits.tell(ORG, Amended(found.tallies, found.at, 0, -250))
    left = await limits.reserve(ORG, RequestId("2"), most, tokens=0, uses=1)
    assert isinstance(left, Reservation)
    assert [(room.requests, room.tokens) for room in left.rooms] == [(7, 350)]
    await limits.close()


@pytest.mark.parametrize("key_limit", [40, 1000])
async def test_two_processes_that_lend_never_let_more_pass_than_the_limit_and_nearly_all_of_it(
    empty: SecretStr, key_limit: int
) -> None:
    processes = [RedisLimits(empty), RedisLimits(empty)]
    most = key(Limits(requests_per_minute=key_limit))
    passed = 0

    async def spend(number: int, process: RedisLimits) -> None:
        nonlocal passed
        for turn in range(10 * key_limit):
            found = await process.reserve(ORG, RequestId(f"{number} {turn}"), most, tokens=0, uses=256)
            if isinstance(found, Exceeded):
                return
            unspent = found.uses // 3
            passed += found.uses - unspent
            await process.tell(ORG, Amended(found.tallies, found.at, -unspent, 0))

    await asyncio.gather(*(spend(number, processes[number % 2]) for number in range(4)))
    assert 0.98 * key_limit <= passed <= key_limit
    for process in processes:
        await process.close()


async def test_what_a_session_uses_counts_for_all_and_is_told_when_nothing_is_left(empty: SecretStr) -> None:
    processes = [RedisLimits(empty, window_s=3), RedisLimits(empty, window_s=3)]
    most = Limits(tokens_per_minute=1000)
    limits = (*key(most), *scoped(Scope.MODEL, "m", Limits(tokens_per_minute=5000)))
    await reserved(processes[0], 1, most, tokens=300)
    assert await processes[1].use(ORG, limits, tokens=699, reserved=0) is None
    assert await processes[0].use(ORG, limits, tokens=1, reserved=300) is None
    found = await processes[0].use(ORG, limits, tokens=0, reserved=0)
    assert found is not None
    assert (found.limit, found.scope, found.room.tokens) == (Limit.TOKENS, Scope.KEY, 1000)
    assert 1 <= found.retry_after_s <= 3
    assert (await refused(processes[1], 2, most, tokens=1)).limit is Limit.TOKENS
    await asyncio.sleep(found.retry_after_s)
    assert await processes[0].use(ORG, limits, tokens=0, reserved=0) is None
    # The model's are counted by themselves, whoever is refused.
    told = await processes[0].use(ORG, limits, tokens=5000, reserved=0)
    assert told is not None
    assert told.scope is Scope.KEY
    told = await processes[1].use(OrgId("org_2"), limits[1:], tokens=0, reserved=0)
    assert told is not None
    assert told.scope is Scope.MODEL
    for process in processes:
        await process.close()
