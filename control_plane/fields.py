"""Types of fields that several bodies share. What they admit, Postgres can keep. Pure."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import CoreSchema

from control_plane.accounts.mail import is_mail_address
from gateway_core.money import InvalidAmountError, parse_usd

_YEAR_MIN, _YEAR_MAX = 1970, 9000
STARS_MAX: Final = 4
"""In a pattern of model names."""

SECRET: Final[JsonDict] = {"format": "password", "writeOnly": True}
"""For the schema of a field that is nobody's to see: programs ask for it in their own way, and do not show it."""
SHOWN_ONCE: Final[JsonDict] = {"x-shown-once": True}
"""For the schema of a field that no later answer has."""


class LeftOut:
    """For a field whose None only stands for what was left out: the document of the API has no null there."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the field without null."""
        return next(each for each in handler(schema)["anyOf"] if each != {"type": "null"})


class Body(BaseModel):
    """What an operation reads: nothing more than it knows."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class PartFault:
    """What is wrong with a part of a value.

    Attributes:
        steps: to the part, from the value.
    """

    steps: tuple[int | str, ...]
    detail: str


def refuse_parts(faults: Sequence[PartFault]) -> None:
    """For a validator: pass only a value without faults.

    Raises:
        ValidationError: each of them, where it stands. Whoever validates what the value is in tells them among its own.
    """
    if faults:
        raise ValidationError.from_exception_data(
            "parts",
            [
                InitErrorDetails(
                    type=PydanticCustomError("part", "{detail}", {"detail": fault.detail}), loc=fault.steps, input=None
                )
                for fault in faults
            ],
        )


def _email(text: str) -> str:
    if not is_mail_address(text):
        raise ValueError("not an e-mail address")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError("not a network in CIDR notation, such as 203.0.113.0/24, without host bits") from error


def _usd(text: str) -> str:
    try:
        amount = parse_usd(text)
    except InvalidAmountError as error:
        raise ValueError("not an amount of US dollars with at most nine decimals") from error
    if amount < 0:
        raise ValueError("must not be below zero")
    return text


def _few_stars(pattern: str) -> str:
    # Each star multiplies what a name that does not fit costs.
    if pattern.count("*") > STARS_MAX:
        raise ValueError(f"more than {STARS_MAX} stars")
    return pattern


def _near(moment: datetime) -> datetime:
    if not _YEAR_MIN <= moment.year <= _YEAR_MAX:
        raise ValueError("too far away")
    return moment


Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254, strip_whitespace=True),
    AfterValidator(_email),
    Field(examples=["ada@example.com"]),
]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=120, strip_whitespace=True), AfterValidator(_printable)
]
Password = Annotated[
    str,
    Field(
        min_length=8,
        max_length=200,
        description="8 to 200 characters.",
        examples=["correct horse battery"],
        json_schema_extra=SECRET,
    ),
]
MailToken = Annotated[str, Field(min_length=1, max_length=200, description="From the link in the mail.")]
Network = Annotated[str, StringConstraints(max_length=50), AfterValidator(_network), Field(examples=["203.0.113.0/24"])]
ModelPattern = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._/:@*?\[\]!-]{1,200}$"),
    AfterValidator(_few_stars),
    Field(examples=["gpt-*"]),
]
Usd = Annotated[str, StringConstraints(max_length=24), AfterValidator(_usd), Field(examples=["25.00"])]
Count = Annotated[int, Field(ge=1, le=2_000_000_000)]
Moment = Annotated[AwareDatetime, AfterValidator(_near)]
