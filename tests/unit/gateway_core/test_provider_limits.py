"""What providers say of their limits, as each of them writes it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.provider_limits import NONE, NOTHING_LEFT, PACKED, ProviderLimits, packed_headers, parse_limits

AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


def after(**duration: float) -> datetime:
    return AT + timedelta(**duration)


@pytest.mark.parametrize(
    ("packed", "found"),
    [
        # OpenAI: what is left, and for how long.
        (
            ";;59;1s;149984;6m0s",
            ProviderLimits(None, 59, after(seconds=1), 149984, after(minutes=6)),
        ),
        (";;9999;8.64s;0;20ms", ProviderLimits(None, 9999, after(seconds=8.64), 0, after(milliseconds=20))),
        (";;0;1h2m3s;5;7d4h", ProviderLimits(None, 0, after(hours=1, minutes=2, seconds=3), 5, after(days=7, hours=4))),
        # OpenAI and Azure, refusing: both headers, of which the finer one counts.
        ("1500;2;0;1m;;", ProviderLimits(after(seconds=1.5), 0, after(minutes=1))),
        # Anthropic: until when.
        (
            ";12;0;2026-11-27T12:00:12Z;80000;2026-11-27T12:00:01Z",
            ProviderLimits(after(seconds=12), 0, after(seconds=12), 80000, after(seconds=1)),
        ),
        # A date, as HTTP has it.
        (";Fri, 27 Nov 2026 12:00:30 GMT;;;;", ProviderLimits(after(seconds=30))),
        (";0.5;;;;", ProviderLimits(after(seconds=0.5))),
        (";;;;;", NONE),
        (None, NONE),
        ("-;-;-;-;-;-", NONE),
        (";soon;many;later;-1;1x", NONE),
        ("1;2;3", NONE),
        (";99999999999999999999;;;;", NONE),
        (";;0;999999999d;;", ProviderLimits(requests_remaining=0)),
    ],
)
def test_headers_are_read_as_their_provider_means_them(packed: str | None, found: ProviderLimits) -> None:
    assert parse_limits(packed, AT) == found


@pytest.mark.parametrize(
    ("packed", "free_at"),
    [
        (";;0;10s;5;1m", after(seconds=10)),
        (";;0;10s;0;1m", after(minutes=1)),
        (";2;0;10s;5;1m", after(seconds=10)),
        (";20;7;10s;5;1m", after(seconds=20)),
        (";;7;10s;5;1m", None),
        (";;0;;5;1m", None),
    ],
)
def test_a_provider_is_free_again_when_everything_is_back_that_is_used_up(
    packed: str, free_at: datetime | None
) -> None:
    assert parse_limits(packed, AT).free_at == free_at


@given(st.text(), st.lists(st.text(max_size=40), min_size=6, max_size=6))
def test_no_text_of_a_provider_is_more_than_not_understood(text: str, values: list[str]) -> None:
    parse_limits(text, AT)
    parse_limits(";".join(values), AT)


@given(st.integers(0, 1000), st.integers(0, 1000), st.lists(st.sampled_from(["", "1s", "7"]), min_size=4, max_size=4))
def test_that_nothing_is_left_can_be_seen_before_it_is_read(requests: int, tokens: int, others: list[str]) -> None:
    packed = ";".join([*others[:2], str(requests), others[2], str(tokens), others[3]])
    if 0 in {requests, tokens}:
        assert NOTHING_LEFT in packed


def test_envoy_is_asked_for_every_header_once() -> None:
    assert packed_headers().count("%RESP(") == len(PACKED)
