"""What Stripe tells, taken to the ledger: the event, the fact and every posting in one transaction."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

import asyncpg

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.postgres_audit import write_entry
from control_plane.database import Connection, locked, written
from control_plane.payments.model import CURRENCY_AT_STRIPE, Dispute, DisputeStatus, TransactionKind, from_cents
from control_plane.payments.postgres_balance import find_transaction
from control_plane.payments.postgres_topups import find_topup
from control_plane.payments.stripe_events import (
    Disputed,
    Fact,
    Paid,
    Refunded,
    StripeEvent,
    UnreadableEventError,
    fact_of,
)
from control_plane.webhooks.model import EventType
from control_plane.webhooks.postgres_events import emit
from gateway_core.money import format_usd

_ACCOUNT: Final = "stripe_clearing"
_TOLD: Final = {
    TransactionKind.REFUND: EventType.PAYMENT_REFUNDED,
    TransactionKind.DISPUTE: EventType.PAYMENT_DISPUTED,
}
"""As what webhooks are told of a transaction. Top-ups and the ends of disputes they are told for themselves."""


class Outcome(StrEnum):
    """What became of an event."""

    POSTED = "posted"
    NOTED = "noted"
    """Nothing to post: known already, not ours, of no consequence, or about a payment that has not been heard of."""
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"


class ContradictionError(Exception):
    """An event that cannot be true by what we know. Nothing follows from it but a row for a person to look at."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an event, and why it was quarantined."""

    outcome: Outcome
    reason: str = ""


async def take_event(pool: asyncpg.Pool, event: StripeEvent, raw: bytes) -> Taken:
    """Take in an event whose signature is good. The same one again changes nothing, also at the same time.

    Raises:
        asyncpg.PostgresError, OSError: nothing was kept; Stripe sends it again.
    """
    async with pool.acquire() as db, db.transaction():
        is_new = await db.fetchval(
            """
            INSERT INTO payments.stripe_events (event_id, type, input_hash) VALUES ($1, $2, $3)
            ON CONFLICT (event_id) DO NOTHING RETURNING true
            """,
            event.id,
            event.type,
            event.input_hash,
        )
        if not is_new:
            known = await db.fetchval("SELECT input_hash FROM payments.stripe_events WHERE event_id = $1", event.id)
            if known == event.input_hash:
                return Taken(Outcome.DUPLICATE)
            return await _quarantine(db, event.id, "the same id came with another content", raw)
        try:
            async with db.transaction():
                return Taken(await _apply(db, fact_of(event), event.id))
        except (ContradictionError, UnreadableEventError) as error:
            return await _quarantine(db, event.id, str(error), raw)


async def _quarantine(db: Connection, event_id: str, reason: str, raw: bytes) -> Taken:
    await db.execute(
        """
        INSERT INTO payments.quarantine (event_id, reason, payload) VALUES ($1, $2, $3)
        ON CONFLICT (event_id, reason) DO NOTHING
        """,
        event_id,
        reason,
        raw,
    )
    return Taken(Outcome.QUARANTINED, reason)


async def _apply(db: Connection, fact: Fact | None, event_id: str) -> Outcome:
    if fact is None:
        return Outcome.NOTED
    if fact.currency != CURRENCY_AT_STRIPE:
        # What we ask for is in US dollars. Of other payments, of which the account may have some, we hear as well.
        if isinstance(fact, Paid) or await _find_paid(db, fact.payment_intent) is not None:
            raise ContradictionError("the currency is not US dollars")
        return Outcome.NOTED
    # Facts about one payment, one at a time; what was told of it first is seen by what is told next.
    await db.execute(
        "INSERT INTO payments.refunds (payment_intent) VALUES ($1) ON CONFLICT (payment_intent) DO NOTHING",
        fact.payment_intent,
    )
    await db.execute(
        f"SELECT FROM payments.refunds WHERE payment_intent = $1 {locked()}",
        fact.payment_intent,
    )
    match fact:
        case Paid():
            posted = await _pay(db, fact, event_id)
        case Refunded():
            await db.execute(
                "UPDATE payments.refunds SET told_cents = greatest(told_cents, $2) WHERE payment_intent = $1",
                fact.payment_intent,
                fact.cents,
            )
            posted = False
        case Disputed():
            await _note_dispute(db, fact)
            posted = False
        case _:
            assert_never(fact)
    return Outcome.POSTED if await _take_back(db, fact.payment_intent, event_id) or posted else Outcome.NOTED


async def _pay(db: Connection, fact: Paid, event_id: str) -> bool:
    """Post a payment, unless it is posted."""
    topup = await db.fetchrow(
        f"SELECT * FROM payments.topups WHERE topup_id = $1 {locked()}",  # noqa: S608 - words of ours
        fact.topup_id,
    )
    if topup is None:
        raise ContradictionError("nobody has asked for this top-up")
    if fact.cents != topup["amount_cents"]:
        raise ContradictionError("the amount is not what the top-up was made for")
    if fact.saved is not None:
        await db.execute(
            """
            INSERT INTO payments.payment_methods (org_id, customer, payment_method) VALUES ($1, $2, $3)
            ON CONFLICT (org_id) DO UPDATE SET
                customer = EXCLUDED.customer, payment_method = EXCLUDED.payment_method, saved_at = now()
            """,
            topup["org_id"],
            fact.saved.customer,
            fact.saved.payment_method,
        )
    if topup["payment_intent"] is not None:
        if topup["payment_intent"] != fact.payment_intent:
            raise ContradictionError("the top-up has been paid by another payment")
        return False
    transaction_id = await _post(
        db,
        _Move(topup["org_id"], topup["amount_cents"], TransactionKind.TOPUP, fact.payment_intent),
        Actor(ActorKind(topup["actor_kind"]), topup["actor_id"]),
        event_id,
    )
    await db.execute(
        """
        UPDATE payments.topups
        SET payment_intent = $2, transaction_id = $3, paid_at = now(), failed_at = NULL, failure = NULL
        WHERE topup_id = $1
        """,
        fact.topup_id,
        fact.payment_intent,
        transaction_id,
    )
    paid = written(await find_topup(db, topup["org_id"], fact.topup_id))
    await emit(db, topup["org_id"], EventType.TOPUP_PAID, paid)
    return True


async def _note_dispute(db: Connection, fact: Disputed) -> None:
    # What is decided stays so: the news that it has been opened may come later.
    await db.execute(
        """
        INSERT INTO payments.disputes AS known (dispute_id, payment_intent, amount_cents, status) VALUES ($1, $2, $3, $4)
        ON CONFLICT (dispute_id) DO UPDATE SET status = EXCLUDED.status WHERE known.status = 'open'
        """,
        fact.dispute_id,
        fact.payment_intent,
        fact.cents,
        fact.status,
    )


async def _take_back(db: Connection, payment_intent: str, event_id: str) -> bool:
    """Post what has been told of a payment and is not in the ledger; nothing as long as the payment itself is not.

    Refunds and disputes together take back no more than was paid: what one of them finds taken already it takes once the
    other has given it back.
    """
    topup = await _find_paid(db, payment_intent)
    if topup is None:
        return False
    refund = written(await db.fetchrow("SELECT * FROM payments.refunds WHERE payment_intent = $1", payment_intent))
    disputes = await db.fetch(
        "SELECT * FROM payments.disputes WHERE payment_intent = $1 ORDER BY dispute_id", payment_intent
    )
    if refund["told_cents"] > topup["amount_cents"]:
        raise ContradictionError("more was given back than had been paid")
    if any(dispute["amount_cents"] > topup["amount_cents"] for dispute in disputes):
        raise ContradictionError("more is disputed than had been paid")
    against = [dispute for dispute in disputes if dispute["status"] != DisputeStatus.WON]
    moves = [
        _Move(topup["org_id"], dispute["posted_cents"], TransactionKind.DISPUTE_WON, dispute["dispute_id"])
        for dispute in disputes
        if dispute["status"] == DisputeStatus.WON
    ]
    left = topup["amount_cents"] - refund["posted_cents"] - sum(dispute["posted_cents"] for dispute in against)
    for told, row, kind, reference in (
        (refund["told_cents"], refund, TransactionKind.REFUND, payment_intent),
        *((each["amount_cents"], each, TransactionKind.DISPUTE, each["dispute_id"]) for each in against),
    ):
        missing = max(0, min(told - row["posted_cents"], left))
        left -= missing
        moves.append(_Move(topup["org_id"], -missing, kind, reference))
    due = [move for move in moves if move.cents]
    for move in due:
        await _post(db, move, Actor(ActorKind.STRIPE, event_id), event_id)
        await _note_posted(db, move)
    await _tell_ends(db, topup)
    return bool(due)


async def _note_posted(db: Connection, move: "_Move") -> None:
    """Keep how much of a refund or a dispute is in the ledger."""
    if move.kind is TransactionKind.REFUND:
        statement = "UPDATE payments.refunds SET posted_cents = posted_cents - $2 WHERE payment_intent = $1"
    else:
        statement = "UPDATE payments.disputes SET posted_cents = posted_cents - $2 WHERE dispute_id = $1"
    await db.execute(statement, move.reference, move.cents)


async def _tell_ends(db: Connection, topup: asyncpg.Record) -> None:
    """Tell webhooks of disputes of a payment that have been decided, each once."""
    for dispute in await db.fetch(
        """
        UPDATE payments.disputes SET is_end_told = true
        WHERE payment_intent = $1 AND status <> 'open' AND NOT is_end_told RETURNING dispute_id, amount_cents, status
        """,
        topup["payment_intent"],
    ):
        ended = Dispute(
            id=dispute["dispute_id"],
            topup_id=topup["topup_id"],
            amount=format_usd(from_cents(dispute["amount_cents"])),
            status=dispute["status"],
        )
        await emit(db, topup["org_id"], EventType.DISPUTE_CLOSED, ended)


async def _find_paid(db: Connection, payment_intent: str) -> asyncpg.Record | None:
    return await db.fetchrow("SELECT * FROM payments.topups WHERE payment_intent = $1", payment_intent)


@dataclass(frozen=True, slots=True)
class _Move:
    org_id: str
    cents: int
    kind: TransactionKind
    reference: str


async def _post(db: Connection, move: _Move, actor: Actor, event_id: str) -> int:
    transaction_id: int = await db.fetchval(
        "SELECT billing.move_money($1, $2, $3, $4, NULL, $5, $6, $7)",
        move.org_id,
        from_cents(move.cents),
        _ACCOUNT,
        move.kind,
        move.reference,
        actor.kind,
        actor.actor_id,
    )
    made = await find_transaction(db, move.org_id, transaction_id)
    await write_entry(
        db,
        actor=Actor(ActorKind.STRIPE, event_id),
        org_id=move.org_id,
        action=f"payment.{move.kind}",
        target_id=move.reference,
        before=None,
        after=made,
        request_id=event_id,
    )
    if move.kind in _TOLD:
        await emit(db, move.org_id, _TOLD[move.kind], made)
    return transaction_id
