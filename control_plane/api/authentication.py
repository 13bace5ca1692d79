"""Who is calling: a user with an access token, a machine token, or (for `/v1/models`) an API key of a tenant."""

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts import postgres_sessions, postgres_tokens
from control_plane.accounts.actor import Actor
from control_plane.accounts.postgres_sessions import Session
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.database import Database, Hold
from control_plane.errors import UnauthenticatedError
from gateway_core.api_keys import ApiKey, KeyHash, credential_of, hash_key, is_well_formed
from gateway_core.clock import Now
from gateway_core.postgres_keys import PostgresKeys

_JWT_DOTS = 2

Credential = Session | KeyHash
"""What a caller is looked up by: the session of an access token, or the hash of a machine token."""


class Authenticator:
    """Checks credentials against schema `accounts`."""

    def __init__(self, pool: asyncpg.Pool, access_tokens: AccessTokens, pepper: SecretStr, now: Now) -> None:
        self._pool = pool
        self._keys = PostgresKeys(pool)
        self._access_tokens = access_tokens
        self._pepper = pepper
        self._now = now

    async def api_key(self, request: web.Request) -> ApiKey:
        """The valid API key in the request.

        Raises:
            UnauthenticatedError: no key, or not a valid one.
        """
        credential = credential_of(request.headers)
        if credential is None or not is_well_formed(credential):
            raise UnauthenticatedError
        key = await self._keys.find(hash_key(credential, self._pepper))
        if key is None or not key.is_valid(self._now()):
            raise UnauthenticatedError
        return key

    async def credential(self, request: web.Request) -> Credential:
        """The credential in the request, of which is known by now that it is one of ours.

        Raises:
            UnauthenticatedError: there is none, or nobody here has made it.
        """
        credential = credential_of(request.headers)
        if credential is not None and is_well_formed(credential):
            return hash_key(credential, self._pepper)
        claims = None
        if credential is not None and credential.count(".") == _JWT_DOTS:
            claims = await self._access_tokens.check(credential)
        if claims is None:
            raise UnauthenticatedError
        return Session(claims.session_id, claims.user_id)

    async def actor(self, credential: Credential, db: Database, *, hold: Hold = Hold.NONE) -> Actor:
        """The user or machine token behind a credential. Held, they are until the end of the transaction.

        Raises:
            UnauthenticatedError: it is over.
        """
        if isinstance(credential, Session):
            actor = await postgres_sessions.find_actor(db, credential, hold=hold)
        else:
            actor = await postgres_tokens.find_actor(db, credential, self._now(), hold=hold)
        if actor is None:
            raise UnauthenticatedError
        return actor
