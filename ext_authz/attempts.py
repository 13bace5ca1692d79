"""What attempts at a provider take up of what may be asked of it: nouns, and the arithmetic of a bucket. Pure.

What may be asked in a minute flows in evenly, and what has not been used is kept for some seconds and no longer: providers enforce their
limits over less than a minute, and what flows in can be shared out at any time.
"""

import math
from dataclasses import dataclass
from typing import Final

from gateway_core.ids import OrgId, ProviderName

MINUTE_S: Final = 60
KEPT_PART: Final = 10
"""A bucket holds this part of a minute at the most: so much more than its limit there may be in a minute, and no more."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that is about to be made.

    Attributes:
        envoy: which makes it.
        org_id: whose request it is of.
        tokens: what that is expected to read and write.
    """

    provider: ProviderName
    envoy: str
    org_id: OrgId
    tokens: int


@dataclass(frozen=True, slots=True)
class Counted:
    """It may be made, and counts. The id is told when it is over; None if nobody has to know that."""

    attempt_id: str | None


@dataclass(frozen=True, slots=True)
class Full:
    """It may not be made, for about so long."""

    retry_after_s: int


@dataclass(frozen=True, slots=True)
class AttemptRunning:
    """An attempt that counts still runs."""

    provider: ProviderName
    envoy: str
    attempt_id: str


@dataclass(frozen=True, slots=True)
class AttemptOver:
    """An attempt that counts is over.

    Attributes:
        requests_back, tokens_back: what of it is to count no longer.
    """

    provider: ProviderName
    envoy: str
    attempt_id: str
    requests_back: int
    tokens_back: int


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Requests that a provider has answered used more tokens than was expected; may be less than none."""

    provider: ProviderName
    more_tokens: int


AttemptTold = AttemptRunning | AttemptOver | TokensUsed
"""What is heard of attempts after they have begun."""


@dataclass(slots=True)
class Bucket:
    """What is left of a limit, as of a moment.

    Attributes:
        level: may be less than nothing: what is asked for counts whole, as soon as there is anything.
    """

    level: float
    at_s: float

    def refill(self, per_minute: int, most: float, now_s: float) -> None:
        """Let flow in what has come since."""
        self.level = min(most, self.level + (now_s - self.at_s) * per_minute / MINUTE_S)
        self.at_s = now_s


def requests_kept(per_minute: int) -> float:
    """How much a bucket of requests holds."""
    return per_minute / KEPT_PART + 1


def tokens_kept(per_minute: int) -> float:
    """How much a bucket of tokens holds."""
    return per_minute / KEPT_PART


def seconds_until(missing: float, per_minute: int) -> int:
    """After how many whole seconds so much has flowed in; at least one."""
    return max(1, math.ceil(missing * MINUTE_S / per_minute))
