"""From a request to an operation's handler and back: who, may they, what do they send, run it, render.

The one place that asks the permission table, opens transactions, and keeps answers for an `Idempotency-Key`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from pydantic import BaseModel

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.permissions import Open, Permission, Role
from control_plane.accounts.postgres_orgs import Standing, find_standing, hold_org
from control_plane.api.asked import Asked
from control_plane.api.authentication import Credential
from control_plane.api.client_address import client_address
from control_plane.api.context import SERVICES, Services
from control_plane.api.download import Download
from control_plane.api.errors import REQUEST_ID
from control_plane.api.operation import DRY_RUN_HEADER, Answer, Audit, Call, Operation, Redirect
from control_plane.api.postgres_idempotency import Claim, IdempotentAnswer
from control_plane.api.reading import (
    Aside,
    idempotency_key,
    if_match,
    is_dry_run,
    is_param,
    parse_body,
    read_body,
    read_query,
)
from control_plane.database import Database, Hold
from control_plane.errors import ClosedOrganizationError, ForbiddenError, NotFoundError, RevisionRequiredError
from control_plane.resource import Revised
from gateway_core.ids import OrgId, RequestId

DRY_RUN: Final = "dry_run"


async def continue_if_asked(request: web.Request) -> None:
    """What `Expect` asks for, if that is to go on; anything else may be passed over (RFC 9110, 10.1.1) and would be refused in plain text."""
    if request.version == HttpVersion11 and request.headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As if nothing had been sent yet: aiohttp goes by it when it ends the answer.
        request.writer.output_size = 0


def handler_of(operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of an operation."""

    async def handle(request: web.Request) -> web.Response:
        services = request.app[SERVICES]
        credential = None if operation.access is Open.ANYONE else await services.authenticator.credential(request)
        asked = Asked(
            method=request.method,
            path=request.path,
            path_qs=request.path_qs,
            match_info=request.match_info,
            address=address_of(request, services),
            request_id=RequestId(request[REQUEST_ID]),
            query=request.query,
            headers=request.headers,
        )
        kept = await perform(
            operation,
            asked,
            services,
            credential,
            body=lambda: read_body(request, bytes_max=operation.body_bytes_max, within_s=services.body_s),
        )
        return web.Response(status=kept.status, headers=kept.headers, body=kept.body or None)

    return handle


def address_of(request: web.Request, services: Services) -> str:
    """Where a request comes from, as far as proxies are trusted."""
    forwarded = request.headers.getall("X-Forwarded-For", [])
    return client_address(request.remote or "unknown", forwarded, services.trusted_proxies)


async def perform(
    operation: Operation,
    asked: Asked,
    services: Services,
    credential: Credential | None,
    *,
    body: Callable[[], Awaitable[bytes]],
) -> IdempotentAnswer:
    """One call of an operation, from who asks to what it is answered.

    Args:
        operation: what is asked for.
        asked: with what.
        services: what it works with.
        credential: whose call it is; None where nobody has to say.
        body: reads it, once it is known who sends it.
    """
    if not all(is_param(value) for value in asked.match_info.values()):
        raise NotFoundError
    caller = Caller(operation, asked, services, credential)
    actor, role = await caller.admitted(services.pool)
    # A PUT may be about something that is not there yet; its handler knows.
    if operation.needs_revision and operation.method != "PUT" and "If-Match" not in asked.headers:
        raise RevisionRequiredError
    pool = services.catalog_pool if operation.is_about_catalog else services.pool
    call = Call(
        asked,
        services,
        actor,
        asked.request_id,
        pool,
        pool,
        role=role,
        expected_revision=if_match(asked),
        has_precondition="If-Match" in asked.headers,
    )
    if operation.body is not None:
        # All of it, before a place is taken: nobody keeps one by sending slowly.
        call.body = await body()
    if operation.is_heavy:
        async with services.workbench.place():
            kept = await _perform(caller, call, services.workbench.do)
    else:
        kept = await _perform(caller, call, asyncio.to_thread)
    for action in call.after_commit:
        await action()
    return kept


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an operation: asked again whenever time has passed in which their right may have been taken away.

    Attributes:
        credential: None where none is needed.
    """

    operation: Operation
    asked: Asked
    services: Services
    credential: Credential | None

    async def admitted(self, db: Database, *, hold: Hold = Hold.NONE) -> tuple[Actor, Role | None]:
        """Who it is, and what they are in the organisation of the path; only if they may do this, by the permission table.

        Held, all of it is so until the end of the transaction.

        Raises:
            UnauthenticatedError: nobody, or nobody any more.
            NotFoundError: the path names an organisation that the caller has nothing to do with, or that is none.
            ForbiddenError: the caller may not do this here.
            ClosedOrganizationError: only an operator may, because the organisation is closed.
        """
        if self.credential is None:
            return Actor(ActorKind.ANONYMOUS, self.asked.address), None
        org_id = self.asked.match_info.get("org_id")
        if hold and org_id is not None:
            await hold_org(db, org_id, hold)
        actor = await self.services.authenticator.actor(self.credential, db, hold=hold)
        match self.operation.access:
            case Open.SIGNED_IN:
                if actor.kind is not ActorKind.USER:
                    raise ForbiddenError("This is for users; a machine token is not one.")
                return actor, None
            case Permission() as permission:
                return actor, await self._role(actor, permission, db, hold=hold)
            case Open.KNOWN | Open.ANYONE:
                return actor, None

    async def _role(self, actor: Actor, permission: Permission, db: Database, *, hold: Hold) -> Role | None:
        org_id = self.asked.match_info.get("org_id")
        standing = None if org_id is None else await standing_in(OrgId(org_id), actor, db, hold=hold)
        role = None if standing is None else standing.role
        if not actor.may(permission, role):
            raise ForbiddenError(f"This needs the permission {permission}.")
        if standing is not None and standing.is_closed and not (self.operation.is_read or actor.is_operator):
            raise ClosedOrganizationError
        return role


async def standing_in(org_id: OrgId, actor: Actor, db: Database, *, hold: Hold = Hold.NONE) -> Standing:
    """What a caller is in an organisation.

    Raises:
        NotFoundError: they have nothing to do with it, or there is none.
    """
    user_id = actor.actor_id if actor.kind is ActorKind.USER else None
    standing = await find_standing(db, org_id, user_id, hold=hold)
    if standing is None or not (actor.is_operator or standing.role is not None or actor.org_id == org_id):
        raise NotFoundError
    return standing


async def _perform(caller: Caller, call: Call, aside: Aside) -> IdempotentAnswer:
    """From the query and the body to the answer; `aside` is where a large body is parsed."""
    operation = caller.operation
    if operation.body is not None:
        call.actor, call.role = await caller.admitted(call.pool)
    arguments: dict[str, BaseModel] = {}
    query = read_query(call.request, operation.query, extra=(DRY_RUN,) if operation.in_transaction else ())
    if query is not None:
        arguments["query"] = query
    if operation.body is not None:
        arguments["body"] = await parse_body(call.body, operation.body, aside, call.services.circumstances)
    if operation.prepare is not None:
        await operation.prepare(call, **arguments)
    if operation.in_transaction:
        return await _change(caller, call, arguments)
    return await _handle(operation, call, arguments)


async def _change(caller: Caller, call: Call, arguments: dict[str, BaseModel]) -> IdempotentAnswer:
    operation = caller.operation
    is_rehearsal = is_dry_run(call.request)
    key = idempotency_key(call.request) if operation.method == "POST" and not is_rehearsal else None
    async with call.pool.acquire() as connection:
        call.db = connection
        transaction = connection.transaction()
        await transaction.start()
        try:
            hold = Hold.TAKEN if operation.takes_rights else Hold.KEPT
            call.actor, call.role = await caller.admitted(connection, hold=hold)
            answer = await _once(operation, call, arguments, key)
        except BaseException:
            await transaction.rollback()
            raise
        if is_rehearsal:
            await transaction.rollback()
            call.after_commit.clear()
            answer.headers[DRY_RUN_HEADER] = "true"
        else:
            await transaction.commit()
    return answer


async def _once(operation: Operation, call: Call, arguments: dict[str, BaseModel], key: str | None) -> IdempotentAnswer:
    claim = None
    if key is not None:
        caller = f"{call.actor.kind}/{call.actor.actor_id}"
        claim = Claim.of(
            caller=caller,
            key=key,
            method=call.request.method,
            target=call.request.path_qs,
            if_match=call.request.headers.get("If-Match", ""),
            body=call.body,
        )
        kept = await claim.take(call.db, call.services.seal)
        if kept is not None:
            kept.headers["Idempotency-Replayed"] = "true"
            return kept
    answer = await _handle(operation, call, arguments)
    if claim is not None:
        await claim.keep(call.db, call.services.seal, answer)
    return answer


async def _handle(operation: Operation, call: Call, arguments: dict[str, BaseModel]) -> IdempotentAnswer:
    answer = await operation.handler(call, **arguments)
    if operation.audit is not Audit.NONE and not call.audited:
        raise RuntimeError(f"{operation.name} has changed something and left no audit entry")
    return _render(operation, answer)


def _render(operation: Operation, answer: Answer) -> IdempotentAnswer:
    if answer is None:
        return IdempotentAnswer(operation.status, {}, b"")
    if isinstance(answer, Download):
        disposition = f'attachment; filename="{answer.filename}"'
        headers = {"Content-Type": answer.media_type, "Content-Disposition": disposition}
        return IdempotentAnswer(operation.status, headers, answer.content)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if isinstance(answer, Revised):
        headers["ETag"] = f'"{answer.revision}"'
    if isinstance(answer, Redirect):
        headers["Location"] = answer.location
    return IdempotentAnswer(
        operation.status, headers, answer.model_dump_json(exclude_defaults=operation.is_brief).encode()
    )
