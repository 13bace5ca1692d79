"""Who looks at a page, and what the API is asked for them: its own operations, in this process, with their credential."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict, MultiDict

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.permissions import Open, Permission, Role
from control_plane.api.asked import Asked
from control_plane.api.authentication import Credential
from control_plane.api.context import Services
from control_plane.api.dispatch import DRY_RUN, perform
from control_plane.api.operation import OPERATIONS, PREFIX, Operation
from control_plane.api.postgres_idempotency import IdempotentAnswer
from control_plane.errors import UnauthenticatedError
from gateway_core.api_keys import KeyHash
from gateway_core.ids import RequestId, new_id


@cache
def _operations() -> Mapping[str, Operation]:
    """Every operation by its name; all of their modules are imported by the time a page is asked for."""
    return {operation.name: operation for operation in OPERATIONS}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks.

    Attributes:
        address: where they come from.
        cookie_hash: of what their browser holds; None if it holds nothing that is good.
        credential: what they have signed in with.
        actor: who that is.
        attempt: which form of a page they send, and with what in it; None where they send none. What it asks for is done once.
    """

    services: Services
    address: str
    cookie_hash: KeyHash | None = None
    credential: Credential | None = None
    actor: Actor | None = None
    attempt: str | None = None

    @property
    def is_user(self) -> bool:
        """Whether they are a person with an account, and no token."""
        return self.actor is not None and self.actor.kind is ActorKind.USER

    def may(self, permission: str, role: str | None = None) -> bool:
        """Whether the permission table lets them, with their role in the organisation it is about."""
        return self.actor is not None and self.actor.may(Permission(permission), Role(role) if role else None)

    async def ask(
        self,
        name: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        match: str | None = None,
        dry_run: bool = False,
        **params: str,
    ) -> Any:
        """Call an operation; its answer as the JSON that the API documents, or None.

        Args:
            name: of the operation.
            body: its body.
            query: its query.
            match: the revision it is meant for; None without one.
            dry_run: whether nothing is to be kept of it.
            params: the parameters of its path.

        Raises:
            RefusedError: the API refuses it. UnauthenticatedError of those: nobody is signed in, or not any more.
        """
        answer = await self.fetch(name, body=body, query=query, match=match, dry_run=dry_run, **params)
        return json.loads(answer.body) if answer.body else None

    async def fetch(
        self,
        name: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        match: str | None = None,
        dry_run: bool = False,
        **params: str,
    ) -> IdempotentAnswer:
        """The same with the answer as it comes: for files."""
        operation = _operations()[name]
        if self.credential is None and operation.access is not Open.ANYONE:
            raise UnauthenticatedError
        path = PREFIX + operation.path.format(**params)
        asked_for = {**(query or {}), **({DRY_RUN: "true"} if dry_run else {})}
        headers: CIMultiDict[str] = CIMultiDict()
        if match is not None:
            headers["If-Match"] = f'"{match}"'
        credential = None if operation.access is Open.ANYONE else self.credential
        if self.attempt is not None and credential is not None:
            headers["Idempotency-Key"] = f"{self.attempt}/{name}"
        asked = Asked(
            method=operation.method,
            path=path,
            path_qs=f"{path}?{urlencode(asked_for)}" if asked_for else path,
            match_info=params,
            address=self.address,
            request_id=RequestId(new_id("req", self.services.random_bytes)),
            query=MultiDict(asked_for),
            headers=headers,
        )
        written = json.dumps({} if body is None else body).encode()

        async def read() -> bytes:
            return written

        return await perform(operation, asked, self.services, credential, body=read)


VISITOR: Final = web.RequestKey("visitor", Visitor)
