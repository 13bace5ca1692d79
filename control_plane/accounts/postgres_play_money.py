"""The test balance of an organisation: play money in books of its own, which billing_sink owns (schema `billing`)."""

from pydantic import Field

from control_plane.database import Database
from control_plane.resource import Resource
from gateway_core.mode import Mode
from gateway_core.money import Currency, NanoUsd, format_usd


class PlayMoney(Resource):
    """Play money for requests with test keys."""

    currency: Currency = "USD"
    posted: str = Field(description="What was filled up and not yet spent.")
    held: str = Field(
        description="Set aside for requests: for those that run, and for two minutes ahead where there is plenty."
    )
    available: str = Field(description="What new requests can spend: posted without held.")


async def find_play_money(db: Database, org_id: str) -> PlayMoney | None:
    """What an organisation has left."""
    row = await db.fetchrow(
        "SELECT posted_nano_usd, held_nano_usd FROM billing.accounts WHERE kind = 'balance' AND org_id = $1 AND mode = $2",
        org_id,
        Mode.TEST,
    )
    if row is None:
        return None
    posted, held = row["posted_nano_usd"], row["held_nano_usd"]
    return PlayMoney(posted=format_usd(posted), held=format_usd(held), available=format_usd(NanoUsd(posted - held)))


async def refill_play_money(db: Database, org_id: str) -> None:
    """Fill it up to what an organisation begins with."""
    await db.execute("SELECT billing.refill_test_balance($1)", org_id)
