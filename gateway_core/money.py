"""Money: integers of nano-USD (1e-9 USD) inside, decimal strings outside. Pure; no float comes near it."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, NewType

NanoUsd = NewType("NanoUsd", int)
Currency = Literal["USD"]
"""What stands beside every amount that the API answers with or reads."""

NANO_PER_USD: Final = 1_000_000_000
MAX_NANO_USD: Final = 2**63 - 1
"""The largest amount a BIGINT holds, about 9.2 billion USD."""

_DECIMAL = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,9})?")


class InvalidAmountError(ValueError):
    """Text that is not an amount of US dollars with at most nine decimals."""


def parse_usd(text: str) -> NanoUsd:
    """Read a decimal string such as `"1.25"`.

    Raises:
        InvalidAmountError: anything else than plain digits with up to nine decimals, or more than a BIGINT holds.
    """
    if not _DECIMAL.fullmatch(text):
        raise InvalidAmountError(f"not an amount in USD with at most 9 decimals: {text[:40]!r}")
    amount = int(Decimal(text).scaleb(9))
    if abs(amount) > MAX_NANO_USD:
        raise InvalidAmountError("amount is too large")
    return NanoUsd(amount)


def format_usd(amount: NanoUsd) -> str:
    """The decimal string of an amount: at least two decimals, no trailing zeros beyond them."""
    sign = "-" if amount < 0 else ""
    whole, nano = divmod(abs(amount), NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def round_half_even(exact: Fraction) -> NanoUsd:
    """The nearest whole nano-USD; a tie goes to the even one, so that rounding favours neither side."""
    return NanoUsd(round(exact))
