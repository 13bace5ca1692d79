"""`/catalog/imports`: public lists of models and prices as documents, to be looked at and then applied."""

from typing import Annotated, Final

from pydantic import Field, JsonValue, StringConstraints

from control_plane.accounts.permissions import Permission
from control_plane.api.catalog import DOCUMENT_BYTES_MAX, TAG, as_of_one_moment
from control_plane.api.operation import Audit, Call, operation
from control_plane.api.strict_json import parse_object
from control_plane.catalog.document import CatalogDocument
from control_plane.catalog.document_changes import Change, Changes, changes
from control_plane.catalog.imports import Choice, Imported, ImportFormat, convert
from control_plane.catalog.postgres_document import newest_revision, read_document
from control_plane.catalog.price_list import SkipError, Skipped
from control_plane.errors import InvalidField, InvalidFieldsError
from control_plane.fields import Body, ModelPattern
from control_plane.resource import Revised

_CONTENT: Final = "/content"

ListName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
BaseUrl = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Import(Body):
    """A list, and what of it is wanted."""

    format: ImportFormat = Field(
        description="litellm: the file model_prices_and_context_window.json. openrouter: the answer to GET /api/v1/models."
    )
    content: dict[str, JsonValue] = Field(description="The list, as it is.")
    models: list[ModelPattern] = Field(
        default=[],
        max_length=1000,
        description="Shell-style patterns of the providers' own model names; none means all.",
    )
    providers: list[ListName] = Field(
        default=[], max_length=1000, description="As the list calls them; none means all."
    )
    provider_base_urls: dict[ListName, BaseUrl] = Field(
        default={},
        max_length=1000,
        description="Where a provider is, by the list's name. Without it, vendors that are in one place for "
        "everybody and the providers that are there already are known.",
    )


class ImportPreview(Revised):
    """What a list would make of the catalogue. Its ETag is for the If-Match of the apply."""

    document: CatalogDocument
    changes: list[Change]
    skipped: list[Skipped] = Field(description="What was asked for and is not in the document, or not all of it.")


@operation(
    "POST",
    "/catalog/imports",
    tag=TAG,
    access=Permission.CATALOG_READ,
    in_transaction=False,
    audit=Audit.NONE,
    body_bytes_max=DOCUMENT_BYTES_MAX,
    is_heavy=True,
    is_brief=True,
)
async def preview_import(call: Call, body: Import) -> ImportPreview:
    """A list of LiteLLM's or OpenRouter's as a document that can be applied; changes nothing, and publishes nothing."""
    async with as_of_one_moment(call) as db:
        current, revision = await read_document(db, call.services.workbench), await newest_revision(db)
    imported, found = await call.services.workbench.do(_convert, call.body, body, current)
    return ImportPreview(
        revision=revision,
        document=imported.document,
        changes=list(found.values()),
        skipped=imported.skipped,
    )


def _convert(raw: bytes, body: Import, current: CatalogDocument) -> tuple[Imported, Changes]:
    # Read again, because `body` has its numbers as floats.
    content = parse_object(raw)["content"]
    assert isinstance(content, dict)  # noqa: S101 - it is in `body`
    choice = Choice(body.models, frozenset(body.providers), body.provider_base_urls)
    try:
        imported = convert(body.format, content, choice, current)
    except SkipError as error:
        raise InvalidFieldsError(InvalidField(_CONTENT + error.skipped.pointer, error.skipped.reason)) from error
    return imported, changes(current, imported.document, has_credential=set(), prune=False)
