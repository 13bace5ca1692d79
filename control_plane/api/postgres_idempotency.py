"""Answers to POSTs with an `Idempotency-Key`, kept for 24 hours: the same call again gets the same answer.

A claim lives in the transaction of the call itself: a refused call leaves none, and a second one at the same time waits
until the first has committed or gone.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from control_plane import sealing
from control_plane.database import Database
from control_plane.errors import IdempotencyMismatchError
from control_plane.sealing import Purpose, Seal

KEPT: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class IdempotentAnswer:
    """An answer as it was given."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """One call that wants to be made once.

    Attributes:
        caller: who; keys of different callers never meet.
        key: the header's value.
        request_hash: of method, path and body.
    """

    caller: str
    key: str
    request_hash: bytes

    @classmethod
    def of(cls, *, caller: str, key: str, method: str, target: str, if_match: str, body: bytes) -> "Claim":
        """The claim of a call; its target is path and query."""
        digest = hashlib.sha256()
        for part in (caller.encode(), method.encode(), target.encode(), if_match.encode(), body):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return cls(caller, key, digest.digest())

    async def take(self, db: Database, seal: Seal) -> IdempotentAnswer | None:
        """The answer given before, or None: then this call is the one to give it.

        Raises:
            IdempotencyMismatchError: the key was used for another call.
        """
        await db.execute(
            """
            DELETE FROM accounts.idempotency_keys
            WHERE caller = $1 AND idempotency_key = $2 AND created_at < now() - $3::interval
            """,
            self.caller,
            self.key,
            KEPT,
        )
        is_first = await db.fetchval(
            """
            INSERT INTO accounts.idempotency_keys (caller, idempotency_key, request_hash) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING RETURNING true
            """,
            self.caller,
            self.key,
            self.request_hash,
        )
        if is_first:
            return None
        row = await db.fetchrow(
            """
            SELECT request_hash, sealed_answer FROM accounts.idempotency_keys
            WHERE caller = $1 AND idempotency_key = $2
            """,
            self.caller,
            self.key,
        )
        if row is None or row["request_hash"] != self.request_hash:
            raise IdempotencyMismatchError
        kept = json.loads(seal.open(self._purpose, row["sealed_answer"]))
        return IdempotentAnswer(kept["status"], kept["headers"], kept["text"].encode())

    async def keep(self, db: Database, seal: Seal, answer: IdempotentAnswer) -> None:
        """Keep the answer, with what the call has done."""
        content = json.dumps(
            {"status": answer.status, "headers": answer.headers, "text": answer.body.decode()}
        ).encode()
        await db.execute(
            "UPDATE accounts.idempotency_keys SET sealed_answer = $3 WHERE caller = $1 AND idempotency_key = $2",
            self.caller,
            self.key,
            seal.seal(self._purpose, content),
        )

    @property
    def _purpose(self) -> Purpose:
        return sealing.idempotent_answer(self.caller, self.key)


async def forget_old_answers(db: Database) -> None:
    """Remove what is older than is promised."""
    await db.execute("DELETE FROM accounts.idempotency_keys WHERE created_at < now() - $1::interval", KEPT)
