"""Who is calling: a user with an access token, a machine token, or (for `/v1/models`) an API key of a tenant."""

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts import postgres_sessions, postgres_tokens
from control_plane.accounts.actor import Actor
from control_plane.accounts.postgres_sessions import Session
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.errors import UnauthenticatedError
from gateway_core.api_keys import ApiKey, credential_of, hash_key, is_well_formed
from gateway_core.clock import Now
from gateway_core.postgres_keys import PostgresKeys

_JWT_DOTS = 2


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

    async def actor(self, request: web.Request) -> Actor:
        """The user or machine token behind the request.

        Raises:
            UnauthenticatedError: no credential, or not a valid one.
        """
        credential = credential_of(request.headers)
        actor = None
        if credential is not None and is_well_formed(credential):
            token_hash = hash_key(credential, self._pepper)
            actor = await postgres_tokens.find_actor(self._pool, token_hash, self._now())
        elif credential is not None and credential.count(".") == _JWT_DOTS:
            claims = await self._access_tokens.check(credential)
            if claims is not None:
                actor = await postgres_sessions.find_actor(self._pool, Session(claims.session_id, claims.user_id))
        if actor is None:
            raise UnauthenticatedError
        return actor
