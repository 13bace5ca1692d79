from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ext_authz.own_limits import OwnLimits
from ext_authz.reservations import Exceeded, Expected, Limit, Reservation, Room, tightest
from gateway_core.limits import Limits, Scope, ScopedLimits, scoped


def key(*limits: int | None, name: str = "key_1", **named: int) -> tuple[ScopedLimits, ...]:
    return scoped(Scope.KEY, name, Limits(*limits, **named))


class Clock:
    """Seconds that a test moves on."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(
    pauses=st.lists(st.floats(min_value=0, max_value=30), max_size=120),
    requests_max=st.integers(1, 10),
    tokens_max=st.integers(1, 1000),
    tokens=st.integers(0, 1500),
)
def test_no_minute_has_more_than_the_limits_say_wherever_it_begins(
    pauses: list[float], requests_max: int, tokens_max: int, tokens: int
) -> None:
    clock = Clock()
    own = OwnLimits(clock)
    admitted: list[tuple[float, int]] = []
    for pause in pauses:
        clock.now_s += pause
        found = own.reserve(key(requests_max, tokens_max), tokens)
        if isinstance(found, Reservation):
            admitted.append((clock.now_s, found.tokens))
    for begin, _ in admitted:
        minute = [counted for at, counted in admitted if begin <= at < begin + 60]
        assert len(minute) <= requests_max
        assert sum(minute) <= tokens_max


@given(pauses=st.lists(st.floats(min_value=0, max_value=30), max_size=60), requests_max=st.integers(1, 5))
def test_who_waits_as_long_as_it_is_told_is_admitted(pauses: list[float], requests_max: int) -> None:
    clock = Clock()
    own = OwnLimits(clock)
    for pause in pauses:
        clock.now_s += pause
        found = own.reserve(key(requests_max), 0)
        if isinstance(found, Exceeded):
            assert 1 <= found.retry_after_s <= 61
            clock.now_s += found.retry_after_s
            assert isinstance(own.reserve(key(requests_max), 0), Reservation)


def test_each_process_has_its_share_and_at_least_one() -> None:
    for processes, share in ((1, 10), (3, 3), (100, 1), (0, 10)):
        own = OwnLimits(Clock())
        own.share_among(processes)
        found = Counter(type(own.reserve(key(requests_per_minute=10), 0)) for _ in range(20))
        assert found[Reservation] == share


def test_a_request_larger_than_the_share_is_admitted_alone() -> None:
    own = OwnLimits(Clock())
    own.share_among(4)
    assert isinstance(own.reserve(key(tokens_per_minute=100), 100), Reservation)
    found = own.reserve(key(tokens_per_minute=100), 1)
    assert isinstance(found, Exceeded)
    assert found.limit is Limit.TOKENS


def test_what_is_expected_of_a_request_is_its_text_and_its_answer_and_never_more_than_the_limit() -> None:
    asked = {"body_bytes": 400, "output_tokens": 9, "output_tokens_max": 90}
    assert Expected.of((), **asked) == Expected(109, 190)
    assert Expected.of(key(tokens_per_minute=150), **asked) == Expected(109, 150)
    assert Expected.of((*key(60), *key(tokens_per_minute=50), *key(tokens_per_minute=70)), **asked) == Expected(50, 50)


def test_a_request_is_counted_against_all_or_none() -> None:
    own = OwnLimits(Clock())
    both = (*key(requests_per_minute=9), *scoped(Scope.ORGANIZATION, "org_1", Limits(requests_per_minute=2)))
    for _ in range(2):
        assert isinstance(own.reserve(both, 0), Reservation)
    found = own.reserve(both, 0)
    assert isinstance(found, Exceeded)
    assert (found.scope, found.room.requests) == (Scope.ORGANIZATION, 2)
    left = own.reserve(key(requests_per_minute=9), 0)
    assert isinstance(left, Reservation)
    assert [room.requests for room in left.rooms] == [3]


def test_a_client_is_told_of_the_limit_that_has_the_least_left() -> None:
    rooms = [
        Room(Limits(60, 1000), 10, 900, 30),
        Room(Limits(20, None), 1, 5000, 60),
        Room(Limits(None, 500), 9, 200, 45),
    ]
    assert tightest(rooms) == Room(Limits(20, 1000), 1, 900, 60)
    assert tightest([Room(Limits(concurrency=3), 1, 1, 5)]) == Room(Limits(), 0, 0, 0)


def test_what_a_session_uses_counts_against_the_share_and_is_told_when_that_is_used_up() -> None:
    clock = Clock()
    own = OwnLimits(clock)
    own.share_among(2)
    limits = key(None, 1000)
    assert isinstance(own.reserve(limits, 300), Reservation)
    assert own.use(limits, tokens=150, reserved=0) is None
    # What is reserved for who asks is not in its way.
    assert own.use(limits, tokens=100, reserved=300) is None
    found = own.use(limits, tokens=0, reserved=0)
    assert isinstance(found, Exceeded)
    assert (found.limit, found.room.tokens) == (Limit.TOKENS, 550)
    clock.now_s += found.retry_after_s
    assert own.use(limits, tokens=0, reserved=0) is None
