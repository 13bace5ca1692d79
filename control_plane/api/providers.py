"""`/providers`: whom requests are sent to."""

from typing import Annotated, Final

from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_providers, rules
from control_plane.catalog.addresses import check_provider_address, check_url
from control_plane.catalog.model import InvalidBaseUrlError
from control_plane.catalog.resources import ListedProvider, Operation, Provider
from control_plane.catalog.specs import PROVIDER_NAME, BaseUrl, ProviderSpec
from control_plane.circumstances import Circumstances, judged
from control_plane.errors import InvalidField
from control_plane.sealing import provider_credential
from gateway_core.ids import ProviderName

TAG: Final = "providers"


def _check_url(url: str, circumstances: Circumstances) -> None:
    check_url(url, private_allowed=circumstances.private_providers_allowed)


class ProviderChange(ProviderSpec):
    """A provider, where one may be."""

    base_url: Annotated[BaseUrl, judged(_check_url)]


async def check_address(call: Call, body: ProviderChange) -> None:
    """Before the transaction, because it asks the DNS. What is found is reported with everything else."""
    if not PROVIDER_NAME.fullmatch(call.param("provider")):
        call.faults.append(InvalidField(rules.PROVIDER, "lower-case letters, digits and hyphens, at most 63"))
    if (detail := await address_fault(call, body.base_url)) is not None:
        call.faults.append(InvalidField("/base_url", detail))


async def address_fault(call: Call, base_url: str) -> str | None:
    """What is wrong with where a provider is said to be."""
    try:
        await check_provider_address(
            base_url, private_allowed=call.services.private_providers_allowed, resolve=call.services.resolve
        )
    except InvalidBaseUrlError as error:
        return str(error)
    return None


@operation("GET", "/providers", tag=TAG, access=Permission.CATALOG_READ)
async def list_providers(call: Call, query: PageQuery) -> Page[ListedProvider]:
    """Every provider, and whether it gets requests now."""
    return await page_of(
        call,
        query,
        Page[ListedProvider],
        lambda position, limit: postgres_providers.list_with_states(call.db, after=position, limit=limit),
    )


@operation("GET", "/providers/{provider}", tag=TAG, access=Permission.CATALOG_READ)
async def get_provider(call: Call) -> Provider:
    """One provider."""
    return found(await postgres_providers.find_provider(call.db, call.param("provider")))


@operation(
    "PUT",
    "/providers/{provider}",
    tag=TAG,
    access=Permission.CATALOG_WRITE,
    status=202,
    needs_revision=True,
    prepare=check_address,
)
async def put_provider(call: Call, body: ProviderChange) -> Operation:
    """Create or replace a provider."""
    name = ProviderName(call.param("provider"))
    await catalog_change.begin(call)
    before = await postgres_providers.find_provider(call.db, name)
    catalog_change.match(call, before)
    now = before if before is not None and before.has_credential else None
    catalog_change.pass_if_valid([*call.faults, *rules.provider_faults(body, now=now)])
    after = await postgres_providers.put_provider(
        call.db,
        name,
        body,
        sealed_credential=None
        if body.credential is None
        else call.services.seal.seal_secret(provider_credential(name), body.credential),
    )
    return await catalog_change.finish(call, "provider.put", name, before=before, after=after)


@operation("DELETE", "/providers/{provider}", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def delete_provider(call: Call) -> Operation:
    """Remove a provider that no deployment and no route names."""
    await catalog_change.begin(call)
    before = found(await postgres_providers.find_provider(call.db, call.param("provider")))
    call.match(before.revision)
    catalog_change.pass_if_unused(await postgres_providers.uses_of_provider(call.db, before.name))
    await postgres_providers.delete_providers(call.db, [before.name])
    return await catalog_change.finish(call, "provider.delete", before.name, before=before)
