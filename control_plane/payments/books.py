"""What a look at the whole ledger finds, as the API shows it. Pure."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from control_plane.resource import Resource
from gateway_core.contract import InspectionFailure


class Check(Resource):
    """One thing that must hold."""

    name: str
    wrong: int = Field(description="How many transactions, accounts or requests it does not hold for.")
    example: str | None = Field(description="The id of one of them.")


class Seal(Resource):
    """The newest link of the chain of hashes over the ledger. Who keeps it elsewhere can tell later that nothing before it has changed."""

    seal_id: int
    last_transaction_id: int = Field(description="Everything up to this is sealed.")
    digest: str = Field(description="SHA-256, in hex.")
    sealed_at: datetime


class Inspection(Resource):
    """What a billing sink found when it looked everything through; it compares ClickHouse with Postgres too."""

    inspected_at: datetime
    ok: bool
    checks: list[Check]


class InspectionState(StrEnum):
    """How far an inspection is that somebody asked for."""

    ASKED = "asked"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


class InspectionOrder(Resource):
    """An inspection that somebody asked for. A running billing sink begins within seconds; how long it takes is up to the ledger."""

    id: int
    state: InspectionState
    asked_at: datetime
    begun_at: datetime | None
    finished_at: datetime | None
    failure: InspectionFailure | None = Field(description="Why nothing was found, right or wrong.")
    inspection: Inspection | None


class BooksQuery(BaseModel):
    """How the books are looked at."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    anew: bool = Field(
        default=True,
        description="Whether the ledger is read now, all of it. If not, `checks` are those of the last inspection; where there was none, it is read all the same.",
    )


class Books(Resource):
    """What a look at the whole ledger found."""

    checked_at: datetime = Field(description="When the ledger was read.")
    ok: bool = Field(
        description="Whether nothing is wrong, and nothing was at the last inspection. False before the first one: until then nobody "
        "has compared ClickHouse."
    )
    checks: list[Check]
    seal: Seal | None = Field(
        description="Null before the first, which is made within a minute of the first transaction."
    )
    last_inspection: Inspection | None


def are_right(checks: Sequence[Check]) -> bool:
    """Whether nothing is wrong."""
    return not any(check.wrong for check in checks)
