"""Shares of a price, as people write them: decimal strings of a percentage, inside in millionths. Pure."""

from fractions import Fraction
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from gateway_core.pricing import PPM

_PPM_PER_PERCENT: Final = 10_000


def ppm_of(percent: str) -> int:
    """A percentage in millionths."""
    return int(Fraction(percent) * _PPM_PER_PERCENT)


def percent_of(ppm: int) -> str:
    """The decimal string of a percentage that is kept in millionths."""
    whole, rest = divmod(abs(ppm), _PPM_PER_PERCENT)
    return f"{'-' if ppm < 0 else ''}{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _markup(text: str) -> str:
    if ppm_of(text) < -PPM:
        raise ValueError("nothing is cheaper than free: at least -100")
    return text


def _share(text: str) -> str:
    if ppm_of(text) > PPM:
        raise ValueError("at most 100")
    return percent_of(ppm_of(text))


Markup = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,4}(\.[0-9]{1,4})?$"), AfterValidator(_markup)]
Share = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$"), AfterValidator(_share), Field(examples=["5"])
]
