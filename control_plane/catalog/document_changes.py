"""What a document would change, in full and without a secret. Pure."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

from pydantic import Field, JsonValue

from control_plane.catalog.document import CatalogDocument, Kind, Thing, things
from control_plane.catalog.specs import ProviderSpec
from control_plane.fields import Body
from control_plane.resource import Resource

HIDDEN: Final = "hidden"
REQUIRED: Final = "required"
_CREDENTIAL: Final = "credential"


class Verb(StrEnum):
    """What happens to a thing."""

    CREATE = "create"
    REPLACE = "replace"
    DELETE = "delete"


class FieldChange(Resource):
    """A field before and after."""

    field: str
    before: JsonValue = Field(description="Null too if it was not there. A credential is only ever 'hidden'.")
    after: JsonValue = Field(
        description="Of a credential also 'required': it has to be given again for another address or way of authentication, and "
        "without it the document is refused."
    )


class Change(Resource):
    """What happens to one thing of the catalogue."""

    change: Verb
    kind: Kind
    key: str = Field(description="Its name, or 'model at provider'.")
    pointer: str = Field(description="Where it stands in a document, as a JSON pointer.")
    fields: list[FieldChange] = Field(
        description="Those that change; of what is new or goes, all that are not at default."
    )


Changes = Mapping[Thing, Change]


def changes(
    current: CatalogDocument,
    wanted: CatalogDocument,
    *,
    has_credential: AbstractSet[str],
    credential_required: AbstractSet[str] = frozenset(),
    prune: bool,
) -> Changes:
    """What applying a document changes, in the order of things; what goes comes last.

    Args:
        current: the catalogue as it is, canonical.
        wanted: canonical as well; a provider has `credential` set only if that is not the one it has.
        has_credential: providers that have one.
        credential_required: those of them that have to be given it again, and are not.
        prune: whether what the document does not name goes; prices stay, because requests were rated by them.
    """
    before, after = things(current), things(wanted)
    found: dict[Thing, Change] = {}
    for thing, spec in after.items():
        old = before.get(thing)
        fields = _fields(old, spec)
        if isinstance(spec, ProviderSpec) and _CREDENTIAL in spec.model_fields_set:
            fields.append(_credential(had=thing.label in has_credential, has=spec.credential is not None))
        elif thing.kind is Kind.PROVIDER and thing.label in credential_required:
            fields.append(FieldChange(field=_CREDENTIAL, before=HIDDEN, after=REQUIRED))
        if old is None:
            found[thing] = _change(Verb.CREATE, thing, fields)
        elif fields:
            found[thing] = _change(Verb.REPLACE, thing, fields)
    if prune:
        for thing in reversed([thing for thing in before if thing not in after and thing.kind is not Kind.PRICE]):
            fields = _fields(before[thing], None)
            if thing.kind is Kind.PROVIDER and thing.label in has_credential:
                fields.append(_credential(had=True, has=False))
            found[thing] = _change(Verb.DELETE, thing, fields)
    return found


def _change(verb: Verb, thing: Thing, fields: Sequence[FieldChange]) -> Change:
    return Change(change=verb, kind=thing.kind, key=thing.label, pointer=thing.pointer, fields=list(fields))


def _fields(before: Body | None, after: Body | None) -> list[FieldChange]:
    if before is not None and after is not None and before == after:
        return []
    is_new_or_gone = before is None or after is None
    old, new = (_written(spec, brief=is_new_or_gone) for spec in (before, after))
    return [
        FieldChange(field=name, before=old.get(name), after=new.get(name))
        for name in {**old, **new}
        if is_new_or_gone or old.get(name) != new.get(name)
    ]


def _written(spec: Body | None, *, brief: bool) -> dict[str, JsonValue]:
    if spec is None:
        return {}
    return spec.model_dump(mode="json", exclude={_CREDENTIAL}, exclude_defaults=brief)


def _credential(*, had: bool, has: bool) -> FieldChange:
    return FieldChange(field=_CREDENTIAL, before=HIDDEN if had else None, after=HIDDEN if has else None)
