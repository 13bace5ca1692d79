"""What the memory of keys remembers, for how long, and what makes it forget."""

import asyncio
import math
from dataclasses import replace

import pytest

from ext_authz.keys import ASK_AGAIN_S, CHANGES_MAX, READINGS_MAX, KeyCache
from gateway_core.api_keys import ApiKey, KeyHash
from gateway_core.ids import OrgId, ProjectId
from tests.support.admission import KEY, Keys

HASH, OTHER, THIRD = (KeyHash(bytes([n]) * 32) for n in (1, 2, 3))


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class SlowKeys(Keys):
    """Answers with what it knew when it was asked, once `go` is set."""

    def __init__(self) -> None:
        super().__init__({HASH: KEY})
        self.go.clear()

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        known = self.keys.get(key_hash)
        await super().find(key_hash)
        return known


def cache(
    store: Keys,
    clock: Clock | None = None,
    *,
    entries_max: int = 100,
    ttl_ms: int = 60_000,
    stale_ms: int = 120_000,
    silence_s: float = math.inf,
) -> KeyCache:
    return KeyCache(
        store,
        entries_max=entries_max,
        ttl_ms=ttl_ms,
        stale_ms=stale_ms,
        silence_s=silence_s,
        trouble=(OSError,),
        monotonic=clock or Clock(),
    )


async def test_a_key_is_asked_for_once_and_then_remembered() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store)
    assert [await keys.find(HASH) for _ in range(3)] == [KEY] * 3
    assert store.asked == [HASH]


async def test_that_there_is_no_such_key_is_remembered_too() -> None:
    store = Keys()
    keys = cache(store)
    assert [await keys.find(HASH) for _ in range(3)] == [None] * 3
    assert store.asked == [HASH]


async def test_what_is_remembered_is_asked_for_again_when_its_time_is_over() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock, ttl_ms=1500)
    await keys.find(HASH)
    clock.seconds += 1.499
    assert await keys.find(HASH) == KEY
    assert len(store.asked) == 1
    store.keys.clear()
    clock.seconds += 0.001
    assert await keys.find(HASH) is None
    assert len(store.asked) == 2


async def test_a_time_to_live_of_zero_remembers_nothing() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store, ttl_ms=0)
    await keys.find(HASH)
    await keys.find(HASH)
    assert len(store.asked) == 2


async def test_the_key_that_was_used_longest_ago_makes_room_for_a_new_one() -> None:
    store = Keys({HASH: KEY, OTHER: KEY, THIRD: KEY})
    keys = cache(store, entries_max=2)
    for key_hash in (HASH, OTHER, HASH, THIRD):
        await keys.find(key_hash)
    store.asked.clear()
    for key_hash in (HASH, THIRD, OTHER):
        await keys.find(key_hash)
    assert store.asked == [OTHER]


async def test_a_key_that_was_read_again_counts_as_new() -> None:
    store, clock = Keys({HASH: KEY, OTHER: KEY, THIRD: KEY}), Clock()
    keys = cache(store, clock, entries_max=2, ttl_ms=1000)
    await keys.find(HASH)
    clock.seconds += 0.6
    await keys.find(OTHER)
    clock.seconds += 0.6
    await keys.find(HASH)
    await keys.find(THIRD)
    store.asked.clear()
    await keys.find(HASH)
    await keys.find(OTHER)
    assert store.asked == [OTHER]


async def test_made_up_keys_take_little_room_and_no_keys_place() -> None:
    store = Keys({HASH: KEY, OTHER: KEY})
    keys = cache(store, entries_max=50)
    await keys.find(HASH)
    await keys.find(OTHER)
    made_up = [KeyHash(n.to_bytes(32)) for n in range(1000)]
    for key_hash in made_up:
        await keys.find(key_hash)
    store.asked.clear()
    for key_hash in (HASH, OTHER, *reversed(made_up)):
        await keys.find(key_hash)
    # The last five were remembered; while the others are asked for, those are still the newest.
    assert store.asked == list(reversed(made_up))[5:]


async def test_a_key_that_comes_to_be_is_found_once_it_is_announced() -> None:
    store = Keys()
    keys = cache(store)
    assert await keys.find(HASH) is None
    store.keys[HASH] = KEY
    keys.forget(HASH)
    assert await keys.find(HASH) == KEY


async def test_a_key_that_changed_is_asked_for_again_and_only_that_one() -> None:
    store = Keys({HASH: KEY, OTHER: KEY})
    keys = cache(store)
    await keys.find(HASH)
    await keys.find(OTHER)
    store.keys.clear()
    keys.forget(HASH)
    store.asked.clear()
    assert await keys.find(HASH) is None
    assert await keys.find(OTHER) == KEY
    assert store.asked == [HASH]


async def test_the_keys_of_an_organisation_that_changed_are_asked_for_again_and_no_others() -> None:
    elsewhere = replace(KEY, org_id=OrgId("org_2"))
    store = Keys({HASH: KEY, OTHER: elsewhere})
    keys = cache(store)
    for key_hash in (HASH, OTHER, THIRD):
        await keys.find(key_hash)
    store.keys.clear()
    keys.forget_org(KEY.org_id)
    store.asked.clear()
    assert [await keys.find(key_hash) for key_hash in (HASH, OTHER, THIRD)] == [None, elsewhere, None]
    assert store.asked == [HASH]


async def test_the_keys_of_a_changed_project_are_forgotten_and_no_others() -> None:
    elsewhere = replace(KEY, project_id=ProjectId("prj_other"))
    store = Keys({HASH: KEY, OTHER: elsewhere})
    keys = cache(store)
    for key_hash in (HASH, OTHER, THIRD):
        await keys.find(key_hash)
    keys.forget_project(KEY.project_id)
    store.asked.clear()
    assert [await keys.find(key_hash) for key_hash in (HASH, OTHER, THIRD)] == [KEY, elsewhere, None]
    assert store.asked == [HASH]


async def test_forgetting_a_key_that_is_not_remembered_does_no_harm() -> None:
    keys = cache(Keys({HASH: KEY}))
    keys.forget(OTHER)
    assert await keys.find(HASH) == KEY


async def test_when_changes_may_have_been_missed_everything_is_asked_for_again() -> None:
    store = Keys({HASH: KEY, OTHER: KEY})
    keys = cache(store)
    await keys.find(HASH)
    await keys.find(OTHER)
    keys.doubt_all()
    store.asked.clear()
    await keys.find(HASH)
    await keys.find(OTHER)
    assert store.asked == [HASH, OTHER]


@pytest.mark.parametrize("everything", [False, True])
async def test_a_key_that_changed_while_it_was_asked_for_is_asked_for_again(everything: bool) -> None:
    store = SlowKeys()
    keys = cache(store)
    finding = asyncio.create_task(keys.find(HASH))
    await asyncio.sleep(0)

    # The key is revoked, and the announcement overtakes the answer.
    store.keys.clear()
    if everything:
        keys.doubt_all()
    else:
        keys.forget(HASH)
    store.go.set()

    assert await finding is None
    assert store.asked == [HASH, HASH]


async def test_a_key_that_changes_all_the_time_is_not_remembered() -> None:
    class Changing(Keys):
        async def find(self, key_hash: KeyHash) -> ApiKey | None:
            keys.forget(key_hash)
            return await super().find(key_hash)

    store = Changing({HASH: KEY})
    keys = cache(store)
    assert await keys.find(HASH) == KEY
    assert store.asked == [HASH] * READINGS_MAX
    assert not keys.is_at_hand(HASH)


async def test_changes_of_others_do_not_keep_a_key_from_being_remembered() -> None:
    store = SlowKeys()
    keys = cache(store)
    finding = asyncio.create_task(keys.find(HASH))
    await asyncio.sleep(0)
    keys.forget(OTHER)
    keys.forget_org(OrgId("org_2"))
    store.go.set()
    assert await finding == KEY
    assert keys.is_at_hand(HASH)
    assert store.asked == [HASH]


async def test_what_was_read_before_changes_that_are_no_longer_told_apart_is_read_again() -> None:
    store = Keys({HASH: KEY, OTHER: KEY})
    keys = cache(store)
    await keys.find(HASH)
    for number in range(CHANGES_MAX):
        keys.forget_org(OrgId(f"org_of_others_{number}"))
    assert keys.is_at_hand(HASH)
    keys.forget_org(OrgId("org_one_more"))
    assert not keys.is_at_hand(HASH)
    await keys.find(HASH)
    assert keys.is_at_hand(HASH)


async def test_a_key_whose_organisation_changed_does_not_work_while_the_store_is_away() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    keys.forget_org(KEY.org_id)
    with pytest.raises(OSError, match="gone"):
        await keys.find(HASH)


async def test_a_store_in_trouble_is_not_remembered_as_an_answer() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store)
    store.trouble = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await keys.find(HASH)
    store.trouble = None
    assert await keys.find(HASH) == KEY


async def test_known_keys_keep_working_while_the_store_is_in_trouble() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    assert await keys.find(HASH) == KEY


async def test_a_key_that_is_in_doubt_works_while_nobody_can_be_asked_and_is_read_again_when_somebody_can() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    keys.doubt_all()
    assert await keys.find(HASH) == KEY
    store.trouble = None
    store.keys.clear()
    clock.seconds += ASK_AGAIN_S
    assert await keys.find(HASH) is None


async def test_a_store_that_is_away_is_not_asked_about_a_key_with_every_request() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    keys.doubt_all()
    store.asked.clear()
    for _ in range(10):
        await keys.find(HASH)
    assert store.asked == [HASH]


async def test_a_key_that_changed_does_not_work_while_the_store_is_away() -> None:
    store = Keys({HASH: KEY})
    keys = cache(store)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    keys.forget(HASH)
    with pytest.raises(OSError, match="gone"):
        await keys.find(HASH)


async def test_a_key_that_was_shown_too_long_ago_does_not_work_while_the_store_is_away() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock, stale_ms=90_000)
    await keys.find(HASH)
    store.trouble = OSError("gone")
    clock.seconds += 89
    assert await keys.find(HASH) == KEY
    clock.seconds += 1
    with pytest.raises(OSError, match="gone"):
        await keys.find(HASH)


async def test_a_process_that_stood_still_asks_again_before_it_admits_anybody() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock, silence_s=4)
    await keys.find(HASH)
    clock.seconds += 3.9
    keys.hears()
    clock.seconds += 3.9
    assert await keys.find(HASH) == KEY
    assert store.asked == [HASH]
    store.keys.clear()
    clock.seconds += 0.2
    assert await keys.find(HASH) is None


async def test_one_silence_is_one_doubt() -> None:
    store, clock = Keys({HASH: KEY}), Clock()
    keys = cache(store, clock, silence_s=4)
    await keys.find(HASH)
    clock.seconds += 5
    assert [await keys.find(HASH) for _ in range(3)] == [KEY] * 3
    assert store.asked == [HASH] * 2


async def test_a_key_that_somebody_asks_for_is_at_hand_for_others() -> None:
    store = SlowKeys()
    keys = cache(store)
    finding = asyncio.create_task(keys.find(HASH))
    assert not keys.is_at_hand(HASH)
    await asyncio.sleep(0)
    assert keys.is_at_hand(HASH)
    assert not keys.is_at_hand(OTHER)
    finding.cancel()
    await asyncio.gather(finding, return_exceptions=True)
    assert not keys.is_at_hand(HASH)
