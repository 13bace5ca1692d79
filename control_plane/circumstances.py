"""What a field of a body is judged by besides itself: the installation, and the time. Pure.

Judged while the body is read, so that one answer tells every field that is wrong. What needs the database comes after.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import AfterValidator, ValidationInfo

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Those of one call.

    Attributes:
        private_providers_allowed: whether a provider may be on loopback or in a private network.
        private_webhooks_allowed: the same for webhooks.
        issuers: the names of those where users can log in.
    """

    now: datetime
    private_providers_allowed: bool
    private_webhooks_allowed: bool
    issuers: AbstractSet[str]


def judged(check: Callable[[T, Circumstances], None]) -> AfterValidator:
    """For the type of a field: refused with the ValueError of the check, in any body that comes by the API."""

    def judge(value: T, info: ValidationInfo) -> T:
        if isinstance(info.context, Circumstances):
            check(value, info.context)
        return value

    return AfterValidator(judge)
