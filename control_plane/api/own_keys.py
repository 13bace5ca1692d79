"""`/orgs/{org_id}/provider-credentials`: keys with which an organisation is its provider's own customer."""

from typing import Final

from pydantic import SecretStr

from control_plane.accounts import throttle
from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_own_keys
from control_plane.catalog.aws_keys import AwsKey, InvalidAwsKeyError
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.postgres_providers import find_provider
from control_plane.catalog.resources import OwnKey, Provider
from control_plane.catalog.specs import OwnKeys, OwnKeySpec
from control_plane.errors import ConflictError, InvalidField, NotFoundError
from control_plane.sealing import own_key
from gateway_core.ids import ProviderName

TAG: Final = "provider credentials"
_PATH: Final = "/orgs/{org_id}/provider-credentials"

OWN_KEYS_PER_ORG_MAX: Final = 20
OWN_KEYS_PER_OWNER_MAX: Final = 20
"""In all organisations that somebody owns together: an organisation costs nothing, and all share the places of the gateway."""

_SHOWN: Final = 4
_HIDDEN_MIN: Final = 12
"""Of a shorter credential nothing is shown."""


@operation("GET", _PATH, tag=TAG, access=Permission.ORG_READ)
async def list_provider_credentials(call: Call, query: PageQuery) -> Page[OwnKey]:
    """Keys of the organisation's own."""
    return await page_of(
        call,
        query,
        Page[OwnKey],
        lambda position, limit: postgres_own_keys.list_own_keys(call.db, call.org_id, after=position, limit=limit),
    )


@operation("GET", _PATH + "/{provider}", tag=TAG, access=Permission.ORG_READ)
async def get_provider_credential(call: Call) -> OwnKey:
    """One of them."""
    return found(await postgres_own_keys.find_own_key(call.db, call.org_id, call.param("provider")))


@operation(
    "PUT",
    _PATH + "/{provider}",
    tag=TAG,
    access=Permission.ORG_WRITE,
    status=202,
    needs_revision=True,
    is_about_catalog=True,
)
async def put_provider_credential(call: Call, body: OwnKeySpec) -> OwnKey:
    """Have the organisation's requests sent to a provider with a key of its own, or with another one than until now."""
    await _pass_if_not_often(call)
    await catalog_change.begin(call)
    provider = await find_provider(call.db, call.param("provider"))
    if provider is None:
        raise NotFoundError
    if provider.own_keys is not OwnKeys.ALLOWED:
        raise ConflictError(
            f"Own keys are not allowed at the provider '{provider.name}'. An operator allows them with "
            f"'own_keys': 'allowed' (tollgate providers put {provider.name} ... --own-keys allowed)."
        )
    before = await postgres_own_keys.find_own_key(call.db, call.org_id, provider.name)
    catalog_change.match(call, before)
    catalog_change.pass_if_valid([*_faults(body.credential, provider, is_new=before is None)])
    if before is None:
        await _pass_if_few(call)
    purpose = own_key(call.org_id, ProviderName(provider.name))
    after = await postgres_own_keys.put_own_key(
        call.db,
        call.org_id,
        provider.name,
        sealed_credential=None if body.credential is None else call.services.seal.seal_secret(purpose, body.credential),
        hint=None if body.credential is None else _hint(body.credential),
        fallback=body.fallback,
    )
    await catalog_change.finish(call, "own_key.put", _target(call), before=before, after=after)
    return found(await postgres_own_keys.find_own_key(call.db, call.org_id, provider.name))


@operation(
    "DELETE",
    _PATH + "/{provider}",
    tag=TAG,
    access=Permission.ORG_WRITE,
    needs_revision=True,
    is_about_catalog=True,
)
async def delete_provider_credential(call: Call) -> None:
    """Have the organisation's requests sent with the gateway's key again. Those that run end as they began."""
    await _pass_if_not_often(call)
    await catalog_change.begin(call)
    before = found(await postgres_own_keys.find_own_key(call.db, call.org_id, call.param("provider")))
    call.match(before.revision)
    await postgres_own_keys.delete_own_key(call.db, call.org_id, before.provider)
    await catalog_change.finish(call, "own_key.delete", _target(call), before=before)


def _faults(credential: SecretStr | None, provider: Provider, *, is_new: bool) -> list[InvalidField]:
    if credential is None:
        return [InvalidField("/credential", "is required")] if is_new else []
    if TEMPLATES[provider.kind].signing_service is None:
        return []
    try:
        AwsKey.find(credential)
    except InvalidAwsKeyError as error:
        return [InvalidField("/credential", str(error))]
    return []


async def _pass_if_not_often(call: Call) -> None:
    for subject in (call.org_id, call.actor.actor_id):
        await call.services.throttle.attempt(throttle.OWN_KEY_CHANGES, subject)


async def _pass_if_few(call: Call) -> None:
    there_are = await postgres_own_keys.count_own_keys(call.db, call.org_id)
    if there_are.in_org >= OWN_KEYS_PER_ORG_MAX:
        raise ConflictError(f"An organisation has at most {OWN_KEYS_PER_ORG_MAX} keys of its own.")
    if there_are.of_owner >= OWN_KEYS_PER_OWNER_MAX:
        raise ConflictError(f"The organisations of one owner have at most {OWN_KEYS_PER_OWNER_MAX} keys of their own.")
    if there_are.together >= call.services.own_keys_max:
        raise ConflictError("This gateway has no place for more keys of organisations.")


def _hint(credential: SecretStr) -> str:
    text = credential.get_secret_value()
    return f"...{text[-_SHOWN:]}" if len(text) >= _SHOWN + _HIDDEN_MIN else "..."


def _target(call: Call) -> str:
    return f"{call.param('provider')} of {call.org_id}"
