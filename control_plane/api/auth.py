"""Who is calling: an API key of a tenant, or a machine token of an operator."""

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts.postgres_keys import KeyOwner, find_key_owner, is_operator
from control_plane.api.errors import UnauthenticatedError
from gateway_core.api_keys import bearer_token, hash_key, is_well_formed
from gateway_core.contract import Header


class Authenticator:
    """Checks credentials against schema `accounts`."""

    def __init__(self, pool: asyncpg.Pool, pepper: SecretStr) -> None:
        self._pool = pool
        self._pepper = pepper

    async def key_owner(self, request: web.Request) -> KeyOwner:
        """The owner of the API key in the request.

        Raises:
            UnauthenticatedError: no key, or not a valid one.
        """
        owner = await find_key_owner(self._pool, hash_key(self._credential(request), self._pepper))
        if owner is None:
            raise UnauthenticatedError
        return owner

    async def require_operator(self, request: web.Request) -> None:
        """Pass only a platform operator.

        Raises:
            UnauthenticatedError: no token, or not an operator's.
        """
        if not await is_operator(self._pool, hash_key(self._credential(request), self._pepper)):
            raise UnauthenticatedError

    def _credential(self, request: web.Request) -> str:
        credential = bearer_token(request.headers.get(Header.AUTHORIZATION)) or request.headers.get(Header.API_KEY)
        if credential is None or not is_well_formed(credential):
            raise UnauthenticatedError
        return credential
