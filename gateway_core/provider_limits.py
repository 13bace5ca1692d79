"""What a provider says of its limits in the headers of an answer, as a value. Pure.

Envoy packs the headers into one text (`packed_headers`), since an attempt has them or, mostly, none of them. OpenAI and who follows it
tell for how long, such as `6m0s`; Anthropic tells until when. What cannot be read is taken as not said: these are a provider's words,
and nothing but the way of later requests hangs on them.

Source: the vendors' pages about rate limits; `tests/unit/gateway_core/test_provider_limits.py` has examples of each.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

PACKED: Final = (
    ("retry-after-ms",),
    ("retry-after",),
    ("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"),
    ("x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"),
    ("x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining"),
    ("x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"),
)
"""The headers that are told of, in their order; of two names the first that is there."""

SEPARATOR: Final = ";"
"""In none of what these headers hold."""

VALUE_CHARACTERS_MAX: Final = 40

NOTHING_LEFT: Final = f"{SEPARATOR}0{SEPARATOR}"
"""In the text of every answer that says that nothing is left, and in few others: remaining counts have neighbours on both sides."""

_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_PART: Final = r"(\d{1,9}(?:\.\d{1,9})?)(ms|us|d|h|m|s)"
_PARTS: Final = re.compile(_PART)
_DURATION: Final = re.compile(rf"(?:{_PART})+")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_COUNT: Final = re.compile(r"\d{1,18}")


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """What a provider has said. None: nothing of that.

    Attributes:
        retry_at: before which it wants to be asked no more.
        requests_reset_at, tokens_reset_at: when there is more than what remains.
    """

    retry_at: datetime | None = None
    requests_remaining: int | None = None
    requests_reset_at: datetime | None = None
    tokens_remaining: int | None = None
    tokens_reset_at: datetime | None = None

    @property
    def free_at(self) -> datetime | None:
        """When it can be asked again: at once if None."""
        resets = [
            *([self.requests_reset_at] if self.requests_remaining == 0 else []),
            *([self.tokens_reset_at] if self.tokens_remaining == 0 else []),
        ]
        return max((each for each in (self.retry_at, *resets) if each is not None), default=None)


NONE: Final = ProviderLimits()


def packed_headers() -> str:
    """The text that Envoy is to write, as a format of its own."""
    return SEPARATOR.join(f"%RESP({'?'.join(names)}):{VALUE_CHARACTERS_MAX}%" for names in PACKED)


def parse_limits(packed: str | None, told_at: datetime) -> ProviderLimits:
    """Read what Envoy has packed of an answer that came at some moment."""
    values = (packed or "").split(SEPARATOR)
    if len(values) != len(PACKED):
        return NONE
    after_ms, after, requests, requests_reset, tokens, tokens_reset = values
    return ProviderLimits(
        retry_at=_moment(after_ms and f"{after_ms}ms", told_at) or _moment(after, told_at),
        requests_remaining=_count(requests),
        requests_reset_at=_moment(requests_reset, told_at),
        tokens_remaining=_count(tokens),
        tokens_reset_at=_moment(tokens_reset, told_at),
    )


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def _moment(text: str, told_at: datetime) -> datetime | None:
    """A number of seconds, a duration with units, a moment by RFC 3339, or one as HTTP writes it."""
    try:
        if _NUMBER.fullmatch(text):
            return told_at + timedelta(seconds=float(text))
        if _DURATION.fullmatch(text):
            return told_at + sum((float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text)), timedelta())
        found = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
