"""Access tokens: JWTs signed with EdDSA by a key that lives in Postgres, so that every replica can sign and check.

The newest key signs. The ones before it stay published and accepted as long as a token of theirs may still be valid. A key that
does not open is as good as gone: its tokens are refused, and if it was the newest, another one is made.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from control_plane import sealing
from control_plane.database import Database
from control_plane.sealing import Seal, UnreadableSealError
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes, new_id
from gateway_core.logs import Logger

LIFETIME: Final = timedelta(minutes=15)
ISSUER: Final = "tollgate"
_ALGORITHM: Final = "EdDSA"
_RELOAD_AFTER: Final = timedelta(seconds=30)
"""A key made by another replica signs here after this time, and an unknown `kid` causes one look-up in it at most."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair."""

    kid: str
    created_at: datetime
    public: Ed25519PublicKey
    private: Ed25519PrivateKey

    def jwk(self) -> dict[str, str]:
        """The public half, as RFC 8037 writes it."""
        x = urlsafe_b64encode(self.public.public_bytes_raw()).decode().rstrip("=")
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": _ALGORITHM, "kid": self.kid, "x": x}


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says."""

    user_id: str
    session_id: str


class AccessTokens:
    """Signs and checks. Keys are kept in memory and read again now and then."""

    def __init__(
        self, db: Database, seal: Seal, now: Now, random_bytes: RandomBytes, log: Logger, *, rotate_after: timedelta
    ) -> None:
        self._db = db
        self._seal = seal
        self._now = now
        self._random_bytes = random_bytes
        self._log = log
        self._rotate_after = rotate_after
        self._keys: list[SigningKey] = []
        self._newest_opens = True
        self._read_at: datetime | None = None

    async def issue(self, claims: Claims) -> str:
        """A token for a user's session."""
        now = self._now()
        key = (await self._current())[0]
        return jwt.encode(
            {
                "iss": ISSUER,
                "aud": ISSUER,
                "sub": claims.user_id,
                "sid": claims.session_id,
                "iat": now,
                "exp": now + LIFETIME,
            },
            key.private,
            algorithm=_ALGORITHM,
            headers={"kid": key.kid},
        )

    async def check(self, token: str) -> Claims | None:
        """What a token says, or None if it is not ours, was changed, or is too old."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._find(kid)
            if key is None:
                return None
            payload = jwt.decode(
                token,
                key.public,
                algorithms=[_ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                # The clock is ours, below.
                options={"require": ["exp", "iat", "sub", "sid"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        if payload["exp"] <= self._now().timestamp():
            return None
        return Claims(str(payload["sub"]), str(payload["sid"]))

    async def jwks(self) -> list[dict[str, str]]:
        """Every key a valid token may be signed with."""
        keys = await self._current()
        oldest = self._now() - LIFETIME - _RELOAD_AFTER
        # A key signs until its successor is made, and at another replica for a moment longer.
        return [
            key.jwk() for position, key in enumerate(keys) if position == 0 or keys[position - 1].created_at > oldest
        ]

    async def add_key(self, db: Database) -> str:
        """Make a new key in a transaction; returns its `kid`. It signs once that is committed and the keys are read again."""
        return await self._make(db)

    async def read_keys(self) -> None:
        """Read the keys again: the newest one signs."""
        await self._read()

    async def _current(self) -> list[SigningKey]:
        if self._read_at is None or self._now() - self._read_at > _RELOAD_AFTER:
            await self._read()
        if not self._keys or self._now() - self._keys[0].created_at > self._rotate_after:
            # Replicas that find it old at the same time make one key between them.
            oldest = self._now() - self._rotate_after
            await self._make(self._db, unless_newer_than=oldest if self._newest_opens else None)
            await self._read()
        return self._keys

    async def _find(self, kid: object) -> SigningKey | None:
        for _ in range(2):
            for key in await self._current():
                if key.kid == kid:
                    return key
            if self._read_at is not None and self._now() - self._read_at < timedelta(seconds=1):
                return None
            await self._read()
        return None

    async def _make(self, db: Database, unless_newer_than: datetime | None = None) -> str:
        kid = new_id("sig", self._random_bytes)
        private = Ed25519PrivateKey.from_private_bytes(self._random_bytes(32))
        await db.execute(
            """
            INSERT INTO accounts.signing_keys (kid, public_key, sealed_private, created_at)
            SELECT $1, $2, $3, $4
            WHERE NOT EXISTS (SELECT FROM accounts.signing_keys WHERE created_at > $5)
            """,
            kid,
            private.public_key().public_bytes_raw(),
            self._seal.seal(sealing.signing_key(kid), private.private_bytes_raw()),
            self._now(),
            unless_newer_than,
        )
        return kid

    async def _read(self) -> None:
        rows = await self._db.fetch(
            """
            SELECT kid, sealed_private, created_at
            FROM (SELECT *, lead(created_at) OVER (ORDER BY created_at) AS replaced_at FROM accounts.signing_keys) key
            WHERE replaced_at IS NULL OR replaced_at > $1 ORDER BY created_at DESC
            """,
            self._now() - LIFETIME - _RELOAD_AFTER,
        )
        keys = []
        for row in rows:
            try:
                raw = self._seal.open(sealing.signing_key(row["kid"]), row["sealed_private"])
            except UnreadableSealError as error:
                self._log.error("signing_key_unreadable", kid=row["kid"], error=str(error))
                continue
            private = Ed25519PrivateKey.from_private_bytes(raw)
            keys.append(SigningKey(row["kid"], row["created_at"], private.public_key(), private))
        self._newest_opens = not rows or (bool(keys) and keys[0].kid == rows[0]["kid"])
        self._keys = keys
        self._read_at = self._now()
