"""Who is calling: an API key of a tenant, or a machine token of an operator."""

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts.postgres_tokens import is_operator
from control_plane.api.errors import UnauthenticatedError
from gateway_core.api_keys import ApiKey, credential_of, hash_key, is_well_formed
from gateway_core.clock import Now
from gateway_core.postgres_keys import PostgresKeys


class Authenticator:
    """Checks credentials against schema `accounts`."""

    def __init__(self, pool: asyncpg.Pool, pepper: SecretStr, now: Now) -> None:
        self._pool = pool
        self._keys = PostgresKeys(pool)
        self._pepper = pepper
        self._now = now

    async def api_key(self, request: web.Request) -> ApiKey:
        """The valid API key in the request.

        Raises:
            UnauthenticatedError: no key, or not a valid one.
        """
        key = await self._keys.find(hash_key(self._credential(request), self._pepper))
        if key is None or not key.is_valid(self._now()):
            raise UnauthenticatedError
        return key

    async def require_operator(self, request: web.Request) -> None:
        """Pass only a platform operator.

        Raises:
            UnauthenticatedError: no token, or not an operator's.
        """
        if not await is_operator(self._pool, hash_key(self._credential(request), self._pepper)):
            raise UnauthenticatedError

    def _credential(self, request: web.Request) -> str:
        credential = credential_of(request.headers)
        if credential is None or not is_well_formed(credential):
            raise UnauthenticatedError
        return credential
