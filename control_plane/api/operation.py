"""What an operation of `/api/v1` is: a handler with its path, permission and types, declared once.

From the same declaration come the route, the checks before the handler, and the OpenAPI document. A handler is
`async def name(call: Call, body: Body, query: Query) -> Answer`; `body` and `query` only if it takes them. `call.db` is a
transaction in every operation that changes something: what the handler did and its audit entries are committed together,
or not at all.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar, get_type_hints

import asyncpg
from pydantic import BaseModel

from control_plane.accounts.actor import Actor
from control_plane.accounts.permissions import Open, Permission, Role
from control_plane.accounts.postgres_audit import Entry, write_entries, write_entry
from control_plane.api.asked import Asked
from control_plane.api.context import Services
from control_plane.database import Database
from control_plane.errors import InvalidField, NotFoundError, RevisionRequiredError, StaleRevisionError
from control_plane.payments.stripe_payments import Checkout
from control_plane.resource import Resource
from gateway_core.ids import OrgId, RequestId

PREFIX: Final = "/api/v1"

DRY_RUN_HEADER: Final = "X-Tollgate-Dry-Run"
"""On the answer to a call with `dry_run`."""

BODY_BYTES_MAX: Final = 1024 * 1024
"""Of an operation that does not say otherwise."""
ANONYMOUS_BODY_BYTES_MAX: Final = 16 * 1024
"""The same where nobody has to say who they are."""

T = TypeVar("T")

Access = Permission | Open
Answer = BaseModel | None
Handler = Callable[..., Awaitable[Answer]]


class Audit(StrEnum):
    """How a change comes into the audit log."""

    REQUIRED = "required"
    """The handler writes it in the transaction it is given; one that does not is undone."""
    BY_ITSELF = "by itself"
    """The handler makes its own transaction and writes the entry in it."""
    NONE = "none"
    """Nothing changes that anybody has to account for."""


class Redirect(Resource):
    """Where the browser goes on; the `Location` of the answer."""

    location: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path.

    Attributes:
        path: behind `/api/v1`, parameters in braces. `{org_id}` is the organisation whose permission is asked for.
        access: the permission it needs.
        body: what it reads; None if it reads nothing.
        query: its query parameters; None if it has none.
        answer: what it answers with; None for 204.
        in_transaction: whether the handler gets a transaction. Without one it makes its own, and `Idempotency-Key` and
            `dry_run` do not apply. A read never gets one.
        prepare: what is done before the transaction, because it takes long; it gets what the handler gets.
        audit: who sees to it that a change leaves an audit entry.
        needs_revision: whether it must come with `If-Match`; a PUT only if there is something to replace.
        body_bytes_max: larger bodies are 413.
        is_heavy: whether it works on the whole catalogue: in a place at the workbench, which it takes before anything else
            is done for it.
        takes_rights: whether it may end what its own right, or that of others in the organisation, hangs on. Calls that have
            such a right are done before, and whoever comes meanwhile waits.
        is_brief: whether fields that are at their default are left out of its answer.
        is_about_catalog: whether it uses the catalogue's connections.
    """

    name: str
    method: str
    path: str
    summary: str
    tag: str
    access: Access
    handler: Handler
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: type[BaseModel] | None
    status: int
    in_transaction: bool
    prepare: Callable[..., Awaitable[None]] | None
    audit: Audit
    needs_revision: bool
    body_bytes_max: int
    is_heavy: bool
    is_brief: bool
    takes_rights: bool
    is_about_catalog: bool

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"


OPERATIONS: Final[list[Operation]] = []
"""Every operation whose module has been imported, in that order."""


def operation(
    method: str,
    path: str,
    *,
    tag: str,
    access: Access,
    status: int | None = None,
    in_transaction: bool = True,
    prepare: Callable[..., Awaitable[None]] | None = None,
    audit: Audit = Audit.REQUIRED,
    needs_revision: bool = False,
    body_bytes_max: int | None = None,
    is_heavy: bool = False,
    is_brief: bool = False,
    takes_rights: bool = False,
    is_about_catalog: bool = False,
) -> Callable[[Handler], Handler]:
    """Declare a handler as an operation. The first line of its docstring is the summary.

    Raises:
        ValueError: it would change something whose audit entry nobody sees to: only in a transaction is there a moment at
            which its absence can still undo the change.
    """
    is_read = method == "GET"
    if audit is Audit.REQUIRED and not in_transaction and not is_read:
        raise ValueError(f"{method} {path} has no transaction, so it has to say how it is audited")

    def declare(handler: Handler) -> Handler:
        hints = get_type_hints(handler)
        answer = hints["return"] if hints["return"] is not type(None) else None
        OPERATIONS.append(
            Operation(
                name=handler.__name__,
                method=method,
                path=path,
                summary=(inspect.getdoc(handler) or handler.__name__).partition("\n")[0],
                tag=tag,
                access=access,
                handler=handler,
                body=hints.get("body"),
                query=hints.get("query"),
                answer=answer,
                status=status or (204 if answer is None else 200),
                in_transaction=in_transaction and not is_read,
                prepare=prepare,
                audit=Audit.NONE if is_read else audit,
                needs_revision=needs_revision,
                body_bytes_max=body_bytes_max
                or (ANONYMOUS_BODY_BYTES_MAX if access is Open.ANYONE else BODY_BYTES_MAX),
                is_heavy=is_heavy,
                is_brief=is_brief,
                takes_rights=takes_rights,
                is_about_catalog=is_about_catalog or access in {Permission.CATALOG_READ, Permission.CATALOG_WRITE},
            )
        )
        return handler

    return declare


@dataclass(slots=True)
class Call:
    """One call of an operation: who, with what, and on which connection.

    Attributes:
        pool: the connections of its operation.
        db: a transaction, or the pool for operations that only read.
        role: what the caller is in the organisation of the path, if they are a member of it. In a transaction they are
            no less until it ends.
        expected_revision: what `If-Match` names; None for `*`.
        after_commit: what to do once everything is kept, such as sending a mail.
        audited: how many audit entries it has written.
        password_hash: of the new password in the body, where `prepare` makes it.
        checked_hash: what is stored of the old one, where `prepare` has found that it fits.
        checkout: the page at Stripe, where `prepare` has asked for one.
        body: as it came.
        faults: what `prepare` has found, for the handler to report with what it finds.
    """

    request: Asked
    services: Services
    actor: Actor
    request_id: RequestId
    pool: asyncpg.Pool
    db: Database
    role: Role | None = None
    expected_revision: int | None = None
    has_precondition: bool = False
    after_commit: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    audited: int = 0
    password_hash: str = field(default="", repr=False)
    checked_hash: str | None = field(default=None, repr=False)
    checkout: Checkout | None = None
    body: bytes = field(default=b"", repr=False)
    faults: list[InvalidField] = field(default_factory=list)

    @property
    def org_id(self) -> OrgId:
        """The organisation in the path."""
        return OrgId(self.request.match_info["org_id"])

    def param(self, name: str) -> str:
        """A parameter of the path."""
        return self.request.match_info[name]

    def match(self, revision: int) -> None:
        """Pass only if the change is meant for this revision.

        Raises:
            StaleRevisionError: it is meant for another one.
            RevisionRequiredError: it does not say for which.
        """
        if not self.has_precondition:
            raise RevisionRequiredError
        if self.expected_revision is not None and self.expected_revision != revision:
            raise StaleRevisionError

    async def audit(
        self,
        action: str,
        target_id: str,
        *,
        before: Resource | None = None,
        after: Resource | None = None,
        org_id: str | None = None,
        actor: Actor | None = None,
    ) -> None:
        """Write down a change, in its transaction. The organisation is that of the path unless it is named."""
        self.audited += 1
        await write_entry(
            self.db,
            actor=actor or self.actor,
            org_id=org_id or self.request.match_info.get("org_id"),
            action=action,
            target_id=target_id,
            before=before,
            after=after,
            request_id=self.request_id,
        )

    async def audit_all(self, entries: Sequence[Entry]) -> None:
        """Write down many changes at once."""
        self.audited += len(entries)
        await write_entries(self.db, entries, actor=self.actor, request_id=self.request_id)


def found(value: T | None) -> T:
    """The value.

    Raises:
        NotFoundError: there is none.
    """
    if value is None:
        raise NotFoundError
    return value
