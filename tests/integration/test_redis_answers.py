"""The scripts that keep answers, on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis.asyncio import Redis

from control_plane.errors import CachedAnswersUnavailableError, ConflictError
from control_plane.redis_cached_answers import RedisCachedAnswers
from gateway_core.contract import CACHE_KEYS
from gateway_core.ids import OrgId
from local_stack.ports import free_port
from local_stack.valkey import running_valkey
from response_cache.redis_answers import ENTRY_BYTES, AnswersTrouble, Missing, Place, RedisAnswers

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORG = OrgId("org_1")
ROOM_FOR = 4
SIZE = 1000
BYTES_MAX = ROOM_FOR * (SIZE + ENTRY_BYTES)
ORG_BYTES_MAX = 3 * (SIZE + ENTRY_BYTES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretStr]:
    async with running_valkey(tmp_path_factory.mktemp("answers") / "valkey") as running:
        yield SecretStr(running)


@pytest_asyncio.fixture(loop_scope="module")
async def redis(url: SecretStr) -> AsyncIterator[Redis]:
    async with Redis.from_url(url.get_secret_value()) as created:
        await created.flushall()
        yield created


@pytest_asyncio.fixture(loop_scope="module")
async def answers(url: SecretStr, redis: Redis) -> AsyncIterator[RedisAnswers]:
    del redis
    created = RedisAnswers(url, bytes_max=BYTES_MAX, org_bytes_max=BYTES_MAX)
    yield created
    await created.close()


@pytest_asyncio.fixture(loop_scope="module")
async def bounded(url: SecretStr, redis: Redis) -> AsyncIterator[RedisAnswers]:
    """No organisation may have as much as all together."""
    del redis
    created = RedisAnswers(url, bytes_max=BYTES_MAX, org_bytes_max=ORG_BYTES_MAX)
    yield created
    await created.close()


async def keep(
    answers: RedisAnswers, name: str, answer: bytes = b"x" * SIZE, ttl_s: int = 60, org_id: OrgId = ORG
) -> Place:
    place, found = await answers.look(org_id, name, "me")
    assert found is Missing.MY_TURN
    await answers.keep(place, answer, ttl_s)
    # Two of one millisecond have no order.
    await asyncio.sleep(0.005)
    return place


def answers_of(*names: str) -> set[bytes]:
    """The keys of answers, by organisation and name."""
    return {f"{CACHE_KEYS}answer:{name}:0".encode() for name in names}


async def cached(redis: Redis) -> set[bytes | str]:
    """The keys of all there are."""
    return set(await redis.keys(f"{CACHE_KEYS}answer:*"))


async def test_one_of_many_has_the_turn_and_the_others_find_what_it_keeps(answers: RedisAnswers) -> None:
    # Connected one after the other.
    for number in range(20):
        await asyncio.gather(*(answers.look(ORG, f"other {each}", "me") for each in range(number)))
    found = await asyncio.gather(*(answers.look(ORG, "q", f"token {number}") for number in range(20)))
    [mine] = [place for place, missing in found if missing is Missing.MY_TURN]
    assert sum(missing is Missing.ANOTHERS_TURN for _, missing in found) == 19
    await answers.keep(mine, b"answer", 60)
    assert (await answers.look(ORG, "q", "later"))[1] == b"answer"


async def test_a_turn_ends_by_its_owner_or_by_itself_and_by_nobody_else(answers: RedisAnswers, redis: Redis) -> None:
    mine, _ = await answers.look(ORG, "q", "me")
    theirs, found = await answers.look(ORG, "q", "they")
    assert found is Missing.ANOTHERS_TURN
    await answers.end_turn(theirs)
    await answers.say_not_cached(theirs)
    assert (await answers.look(ORG, "q", "they"))[1] is Missing.ANOTHERS_TURN
    await redis.pexpire(mine.turn, 50)
    await answers.stay([mine])
    await asyncio.sleep(0.1)
    assert (await answers.look(ORG, "q", "they"))[1] is Missing.ANOTHERS_TURN
    await answers.end_turn(mine)
    theirs, found = await answers.look(ORG, "q", "they")
    assert found is Missing.MY_TURN
    await answers.say_not_cached(theirs)
    assert (await answers.look(ORG, "q", "me"))[1] is Missing.NOT_CACHED


async def test_what_was_used_longest_ago_makes_room(answers: RedisAnswers, redis: Redis) -> None:
    for number in range(ROOM_FOR):
        await keep(answers, f"q{number}")
    assert isinstance((await answers.look(ORG, "q0", "me"))[1], bytes)
    await asyncio.sleep(0.005)
    await keep(answers, "new")
    assert await cached(redis) == answers_of("org_1:q0", "org_1:q2", "org_1:q3", "org_1:new")
    assert await redis.hget(f"{CACHE_KEYS}sizes", "") == str(BYTES_MAX).encode()
    await keep(answers, "big", b"x" * (BYTES_MAX - ENTRY_BYTES))
    assert await cached(redis) == answers_of("org_1:big")
    assert set(await redis.hkeys(f"{CACHE_KEYS}sizes")) == {b"", b"org_1", b"org_1:big:0"}


async def test_an_organisation_that_keeps_much_makes_room_among_its_own(bounded: RedisAnswers, redis: Redis) -> None:
    await keep(bounded, "theirs", org_id=OrgId("org_2"))
    for number in range(9):
        await keep(bounded, f"q{number}")
    assert await cached(redis) == answers_of("org_2:theirs", "org_1:q6", "org_1:q7", "org_1:q8")
    # Used again, its oldest is not the one to go.
    assert isinstance((await bounded.look(ORG, "q6", "me"))[1], bytes)
    await asyncio.sleep(0.005)
    await keep(bounded, "new")
    assert await cached(redis) == answers_of("org_2:theirs", "org_1:q6", "org_1:q8", "org_1:new")
    size = SIZE + ENTRY_BYTES
    sizes = await redis.hmget(f"{CACHE_KEYS}sizes", ["", "org_1", "org_2"])
    assert sizes == [str(count * size).encode() for count in (4, 3, 1)]
    assert await redis.zcard(f"{CACHE_KEYS}order:org_1") == 3


async def test_where_all_together_have_too_much_the_oldest_of_all_goes_and_leaves_nothing_behind(
    bounded: RedisAnswers, redis: Redis
) -> None:
    for number in range(ROOM_FOR + 1):
        await keep(bounded, "q", org_id=OrgId(f"org_{number}"))
    assert await cached(redis) == answers_of(*(f"org_{number}:q" for number in range(1, ROOM_FOR + 1)))
    assert not [key for key in await redis.keys("*") if b"org_0" in key]
    assert not [name for name in await redis.hkeys(f"{CACHE_KEYS}sizes") if b"org_0" in name]


async def test_an_answer_cached_again_counts_once(answers: RedisAnswers, redis: Redis) -> None:
    for _ in range(3):
        place, _ = await answers.look(ORG, "q", "me")
        await answers.keep(place, b"x" * SIZE, 60)
    assert await redis.hget(f"{CACHE_KEYS}sizes", "") == str(SIZE + ENTRY_BYTES).encode()


async def test_an_answer_goes_when_its_time_is_over(answers: RedisAnswers, redis: Redis) -> None:
    await keep(answers, "q", ttl_s=60)
    assert 59 <= await redis.ttl(f"{CACHE_KEYS}answer:org_1:q:0") <= 60


async def test_an_organisation_forgets_all_its_answers_and_nobody_elses(answers: RedisAnswers, url: SecretStr) -> None:
    await keep(answers, "q")
    other, _ = await answers.look(OrgId("org_2"), "other", "me")
    await answers.keep(other, b"theirs", 60)
    cached_answers = RedisCachedAnswers(url)
    await cached_answers.forget(ORG)
    await cached_answers.close()
    place, found = await answers.look(ORG, "q", "me")
    assert (place.generation, found) == ("1", Missing.MY_TURN)
    assert (await answers.look(OrgId("org_2"), "other", "me"))[1] == b"theirs"


async def test_an_answer_that_was_on_the_way_when_all_were_forgotten_is_told_to_nobody(
    answers: RedisAnswers, url: SecretStr
) -> None:
    place, _ = await answers.look(ORG, "q", "me")
    cached_answers = RedisCachedAnswers(url)
    await cached_answers.forget(ORG)
    await cached_answers.close()
    await answers.keep(place, b"old", 60)
    assert (await answers.look(ORG, "q", "me"))[1] is Missing.MY_TURN


async def test_a_redis_that_is_gone_is_said_to_be() -> None:
    nowhere = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    answers = RedisAnswers(nowhere, bytes_max=BYTES_MAX, org_bytes_max=BYTES_MAX)
    with pytest.raises(AnswersTrouble):
        await answers.look(ORG, "q", "me")
    await answers.close()
    for url, trouble in ((None, ConflictError), (nowhere, CachedAnswersUnavailableError)):
        cached_answers = RedisCachedAnswers(url)
        with pytest.raises(trouble):
            await cached_answers.forget(ORG)
        await cached_answers.close()
