"""Limits of providers as one process counts them, and what Envoy tells of attempts."""

from collections.abc import Mapping
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ext_authz.attempt_limiter import AttemptLimiter
from ext_authz.attempts import (
    Attempt,
    AttemptOver,
    AttemptRunning,
    AttemptTold,
    Counted,
    Full,
    TokensUsed,
    requests_kept,
    tokens_kept,
)
from ext_authz.own_attempts import OwnAttempts
from ext_authz.provider_limits import parse_attempt, render
from ext_authz.running_attempts import parse_attempt_entry, parse_use
from ext_authz.shared_counts import CountsUnavailableError, SharedCounts
from gateway_core.clusters import capped_cluster, own_capped_cluster
from gateway_core.contract import AttemptCount, GrantField, Metadata
from gateway_core.ids import OrgId, ProviderName
from gateway_core.limits import Limits
from wire.access_log_pb2 import AccessLogType, HTTPAccessLogEntry
from wire.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

ONE = ProviderName("one")


def attempt(tokens: int = 0) -> Attempt:
    return Attempt(ONE, "host/envoy-1", OrgId("org_1"), tokens)


class Clock:
    """Seconds that a test moves on."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(
    pauses=st.lists(st.floats(min_value=0, max_value=30), max_size=120),
    requests_max=st.integers(1, 30),
    tokens_max=st.integers(1, 1000),
    tokens=st.integers(0, 1500),
)
def test_no_minute_has_more_than_the_limits_and_what_is_kept(
    pauses: list[float], requests_max: int, tokens_max: int, tokens: int
) -> None:
    clock = Clock()
    own, limits = OwnAttempts(clock), Limits(requests_max, tokens_max)
    made: list[float] = []
    for pause in pauses:
        clock.now_s += pause
        if isinstance(own.count(attempt(tokens), limits), Counted):
            made.append(clock.now_s)
    for begin in made:
        minute = [at for at in made if begin <= at < begin + 60]
        assert len(minute) <= requests_max + requests_kept(requests_max)
        # The last of them may be larger than what was left.
        assert (len(minute) - 1) * tokens <= tokens_max + max(1, tokens_kept(tokens_max))


@given(
    pauses=st.lists(st.floats(min_value=0, max_value=30), max_size=60),
    requests_max=st.integers(1, 100),
    tokens_max=st.integers(1, 10_000),
    tokens=st.integers(0, 1500),
)
def test_who_waits_as_long_as_it_is_told_is_asked(
    pauses: list[float], requests_max: int, tokens_max: int, tokens: int
) -> None:
    clock = Clock()
    own, limits = OwnAttempts(clock), Limits(requests_max, tokens_max)
    for pause in pauses:
        clock.now_s += pause
        found = own.count(attempt(tokens), limits)
        waits = 0
        while isinstance(found, Full):
            # Of two limits one says first how long; what rounds to nothing is a moment more.
            assert found.retry_after_s >= 1
            clock.now_s += found.retry_after_s + 1e-6
            waits += 1
            found = own.count(attempt(tokens), limits)
        assert waits <= 2


@given(per_minute=st.integers(60, 6000))
def test_who_always_asks_gets_all_there_is(per_minute: int) -> None:
    clock = Clock()
    own, limits, made = OwnAttempts(clock), Limits(per_minute), 0
    for _ in range(60 * 40):
        clock.now_s += 1 / 40
        while isinstance(own.count(attempt(), limits), Counted):
            made += 1
    assert 0.98 * per_minute <= made <= per_minute + requests_kept(per_minute)


def test_each_process_has_its_share_and_a_limit_that_was_taken_away_leaves_no_debt() -> None:
    clock = Clock()
    own = OwnAttempts(clock)
    own.share_among(3)
    for _ in range(100):
        assert isinstance(own.count(attempt(5), Limits(concurrency=3)), Counted)
    assert isinstance(own.count(attempt(), Limits(60)), Counted)
    assert own.count(attempt(), Limits(60)) == Full(3)


class Gone:
    """Counts that cannot be had."""

    async def count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        raise CountsUnavailableError(attempt, limits)

    async def tell(self, told: AttemptTold) -> None:
        raise CountsUnavailableError(told)


async def test_without_the_shared_counts_a_process_counts_alone_and_says_so() -> None:
    metrics, clock = CollectorRegistry(), Clock()
    counts = SharedCounts(is_there=True, monotonic=clock, registry=metrics, log=structlog.get_logger())
    limiter = AttemptLimiter(Gone(), OwnAttempts(clock), counts, registry=metrics)
    limits = {ONE: Limits(60)}
    assert await limiter.count(attempt(), limits) == Counted(None)
    assert await limiter.count(attempt(), limits) == Full(1)
    assert metrics.get_sample_value("tollgate_ext_authz_limits_shared") == 0
    assert metrics.get_sample_value("tollgate_ext_authz_provider_full_total", {"provider": "one"}) == 1
    assert not await limiter.tell(AttemptRunning(ONE, "host/envoy-1", "org_1/attempt_1"))
    # Envoy knows of a limit before this process does.
    assert await limiter.count(attempt(), {}) == Counted(None)


def test_envoy_is_told_when_to_come_back_and_what_to_say_when_it_is_over() -> None:
    request = RateLimitRequest()
    told = {AttemptCount.PROVIDER: "one", AttemptCount.ENVOY: "h/e", GrantField.ORG_ID: "org_1"}
    for key, value in told.items():
        request.descriptors.add().entries.add(key=key, value=value)
    asked = parse_attempt(request)
    assert asked == Attempt(ONE, "h/e", OrgId("org_1"), 0)
    full = render(asked, Full(7))
    assert full.overall_code == RateLimitResponse.OVER_LIMIT
    assert [(each.key, each.value) for each in full.response_headers_to_add] == [("retry-after", "7")]
    counted = render(asked, Counted("org_1/attempt_1"))
    assert counted.overall_code == RateLimitResponse.OK
    entry = HTTPAccessLogEntry()
    entry.common_properties.metadata.filter_metadata[Metadata.ATTEMPT_NAMESPACE].update(dict(counted.dynamic_metadata))
    entry.response.response_code.value = 200
    assert parse_attempt_entry(entry) == AttemptOver(ONE, "h/e", "org_1/attempt_1", requests_back=0, tokens_back=0)


@pytest.mark.parametrize(
    ("status", "is_overflow", "back"), [(200, False, (0, 0)), (503, True, (1, 40)), (429, False, (0, 40))]
)
def test_what_was_not_answered_has_used_no_tokens_and_what_was_not_sent_is_no_request(
    status: int, is_overflow: bool, back: tuple[int, int]
) -> None:
    entry = HTTPAccessLogEntry()
    entry.common_properties.metadata.filter_metadata[Metadata.ATTEMPT_NAMESPACE].update(
        {
            AttemptCount.PROVIDER: "one",
            AttemptCount.ENVOY: "h/e",
            AttemptCount.ATTEMPT_ID: "org_1/a",
            AttemptCount.TOKENS: "40",
        }
    )
    entry.response.response_code.value = status
    entry.common_properties.response_flags.upstream_overflow = is_overflow
    assert parse_attempt_entry(entry) == AttemptOver(ONE, "h/e", "org_1/a", *back)
    entry.common_properties.access_log_type = AccessLogType.DOWNSTREAM_PERIODIC
    assert parse_attempt_entry(entry) == AttemptRunning(ONE, "h/e", "org_1/a")


USAGE = '{"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}'


@pytest.mark.parametrize(
    ("grant", "cluster", "status", "found"),
    [
        ({GrantField.EXPECTED_TOKENS: "1000"}, capped_cluster("one"), 200, TokensUsed(ONE, -958)),
        # Not answered: the attempt itself has said that it used none.
        ({GrantField.EXPECTED_TOKENS: "1000"}, capped_cluster("one"), 429, None),
        ({GrantField.EXPECTED_TOKENS: "1000"}, own_capped_cluster("one"), 200, None),
        ({GrantField.EXPECTED_TOKENS: "1000"}, "response_cache", 200, None),
        ({}, capped_cluster("one"), 200, None),
    ],
)
@pytest.mark.parametrize("is_leased", [False, True])
def test_an_answered_request_says_what_it_used_at_its_provider(
    grant: Mapping[str, Any], cluster: str, status: int, found: TokensUsed | None, is_leased: bool
) -> None:
    entry = HTTPAccessLogEntry()
    entry.response.response_code.value = status
    entry.common_properties.upstream_cluster = cluster
    told: dict[str, Any] = {Metadata.REQUEST: {"endpoint": "chat"}, Metadata.USAGE_FIRST: USAGE}
    metadata = entry.common_properties.metadata.filter_metadata
    metadata[Metadata.NAMESPACE].update(told | ({Metadata.LEASE: dict(grant)} if is_leased else {}))
    if not is_leased:
        metadata[Metadata.GRANT_NAMESPACE].update(grant)
    assert parse_use(entry) == found
