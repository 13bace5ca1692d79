"""`/catalog/starter`: current models and their list prices as a document, to be looked at and then applied."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from control_plane.accounts.permissions import Permission
from control_plane.api.catalog import TAG, as_of_one_moment
from control_plane.api.operation import Audit, Call, operation
from control_plane.catalog.document import CatalogDocument
from control_plane.catalog.postgres_document import newest_revision, read_document
from control_plane.catalog.postgres_providers import read_credentials
from control_plane.catalog.starter import Source, starter, starter_file
from control_plane.errors import InvalidField, InvalidFieldsError
from control_plane.fields import Body
from control_plane.resource import Revised

_PROVIDERS_MAX: Final = 100


class StarterChoice(Body):
    """What of it is wanted."""

    providers: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] = Field(
        default=[],
        max_length=_PROVIDERS_MAX,
        description="By their names there; none means all.",
        examples=[["openai"]],
    )


class StarterPreview(Revised):
    """A document of what the catalogue does not have yet. Its ETag is for the If-Match of the apply."""

    document: CatalogDocument
    sources: dict[str, dict[str, Source]] = Field(
        description="By model, then by provider: the vendor's page that a price was read from, and when."
    )


@operation(
    "POST",
    "/catalog/starter",
    tag=TAG,
    access=Permission.CATALOG_READ,
    in_transaction=False,
    audit=Audit.NONE,
    is_heavy=True,
    is_brief=True,
)
async def preview_starter(call: Call, body: StarterChoice) -> StarterPreview:
    """Current models with context, longest answer and list price; changes nothing. Routes to a provider without a credential are drafts."""
    known = starter_file().document.providers
    call.faults += [
        InvalidField(f"/providers/{number}", f"not in it; there are {', '.join(known)}")
        for number, name in enumerate(body.providers)
        if name not in known
    ]
    if call.faults:
        raise InvalidFieldsError(*call.faults)
    wanted = body.providers or list(known)
    async with as_of_one_moment(call) as db:
        current, revision = await read_document(db, call.services.workbench), await newest_revision(db)
        credentials = await read_credentials(db, wanted)
    found = await call.services.workbench.do(starter, current, wanted, credentials.keys())
    return StarterPreview(revision=revision, document=found.document, sources=found.sources)
