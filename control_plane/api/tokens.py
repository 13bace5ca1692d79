"""`/tokens` and `/orgs/{org_id}/tokens`: machine tokens with scopes, of the platform and of organisations."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from control_plane.accounts import postgres_makers, postgres_tokens
from control_plane.accounts.model import MachineToken
from control_plane.accounts.permissions import PLATFORM, Permission
from control_plane.api.granting import pass_if_held
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import NotFoundError
from control_plane.fields import SHOWN_ONCE, Body, Moment, Name
from gateway_core.api_keys import MACHINE_PREFIX, OPERATOR_PREFIX, hash_key, new_key
from gateway_core.ids import new_id

TAG: Final = "tokens"


class NewToken(Body):
    """A new machine token, and all it may do."""

    name: Name
    scopes: list[Permission] = Field(min_length=1, max_length=len(Permission))
    expires_at: Moment | None = Field(
        default=None, description="One that is made with another token ends with that at the latest."
    )


def _of_an_organisation(scope: Permission) -> Permission:
    if scope in PLATFORM:
        raise ValueError("only for tokens of the platform")
    return scope


ScopeInOrg = Annotated[
    Permission,
    AfterValidator(_of_an_organisation),
    WithJsonSchema({"type": "string", "enum": [each.value for each in Permission if each not in PLATFORM]}),
]


class NewTokenOfOrg(NewToken):
    """A new machine token of an organisation, and all it may do there."""

    scopes: list[ScopeInOrg] = Field(min_length=1, max_length=len(Permission))


class TokenWithSecret(MachineToken):
    """A token, this once with the token itself."""

    token: str = Field(description="Keep it: it is shown only now.", json_schema_extra=SHOWN_ONCE)


@operation("GET", "/tokens", tag=TAG, access=Permission.PLATFORM_READ)
async def list_tokens(call: Call, query: PageQuery) -> Page[MachineToken]:
    """Machine tokens of the platform."""
    return await _list(call, query, None)


@operation("POST", "/tokens", tag=TAG, access=Permission.PLATFORM_WRITE, status=201)
async def create_token(call: Call, body: NewToken) -> TokenWithSecret:
    """Create a machine token of the platform: it acts in every organisation, within its scopes."""
    return await _create(call, body, None)


@operation("DELETE", "/tokens/{token_id}", tag=TAG, access=Permission.PLATFORM_WRITE, takes_rights=True)
async def revoke_token(call: Call) -> None:
    """Revoke a machine token of the platform, and those that were made with it."""
    await _revoke(call, None)


@operation("GET", "/orgs/{org_id}/tokens", tag=TAG, access=Permission.TOKENS_READ)
async def list_tokens_of_org(call: Call, query: PageQuery) -> Page[MachineToken]:
    """Machine tokens of an organisation."""
    return await _list(call, query, call.org_id)


@operation("POST", "/orgs/{org_id}/tokens", tag=TAG, access=Permission.TOKENS_WRITE, status=201)
async def create_token_of_org(call: Call, body: NewTokenOfOrg) -> TokenWithSecret:
    """Create a machine token that acts in this organisation only."""
    return await _create(call, body, call.org_id)


@operation("DELETE", "/orgs/{org_id}/tokens/{token_id}", tag=TAG, access=Permission.TOKENS_WRITE, takes_rights=True)
async def revoke_token_of_org(call: Call) -> None:
    """Revoke a machine token of an organisation, and those that were made with it."""
    await _revoke(call, call.org_id)


async def _list(call: Call, query: PageQuery, org_id: str | None) -> Page[MachineToken]:
    return await page_of(
        call,
        query,
        Page[MachineToken],
        lambda position, limit: postgres_tokens.list_tokens(call.db, org_id, after=position, limit=limit),
    )


async def _create(call: Call, body: NewToken, org_id: str | None) -> TokenWithSecret:
    services = call.services
    pass_if_held(call, body.scopes)
    token = new_key(OPERATOR_PREFIX if org_id is None else MACHINE_PREFIX, services.random_bytes).get_secret_value()
    stored = await postgres_tokens.add_token(
        call.db,
        token_id=new_id("tok", services.random_bytes),
        token_hash=hash_key(token, services.pepper),
        org_id=org_id,
        name=body.name,
        scopes=sorted(set(body.scopes)),
        expires_at=min(filter(None, (body.expires_at, call.actor.expires_at)), default=None),
        created_by=call.actor.actor_id,
    )
    await call.audit("token.create", stored.id, after=stored)
    return TokenWithSecret(**stored.model_dump(), token=token)


async def _revoke(call: Call, org_id: str | None) -> None:
    token = found(await postgres_tokens.take_token(call.db, call.param("token_id")))
    if token.org_id != org_id:
        raise NotFoundError
    makers = await postgres_makers.with_what_they_made(call.db, [token.id])
    now = call.services.now()
    for ended in await postgres_makers.end_tokens(call.db, makers, now):
        await call.audit("token.revoke", ended.id, before=ended, org_id=ended.org_id)
    await postgres_makers.take_back_invitations(call.db, makers, now)
