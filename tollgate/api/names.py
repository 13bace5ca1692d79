"""What the command of an operation is called: the noun from its path, the verb from its id. Pure.

`rotate_key` on `/orgs/{org_id}/keys/{key_id}/rotate` is `keys rotate`. An organisation in the path is where a thing lives and
not what it is, so it becomes an option. A noun that is both in organisations and beside them, such as tokens, is the
organisation's; the other one is `platform-tokens`.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from tollgate.api.document import Outline

ORG_PARAMETER: Final = "org_id"
_ORG_SEGMENT: Final = "{org_id}"

_EXCEPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "leave_org": ("orgs", "leave"),
    "rebuild_analytics": ("analytics", "rebuild"),
    "verify_books": ("books", "verify"),
    "ask_for_inspection": ("books", "inspect"),
    "get_inspection": ("books", "inspection"),
    "make_reconciliation": ("books", "reconcile"),
    "list_reconciliations": ("books", "reconciliations"),
    "get_reconciliation": ("books", "reconciliation"),
    "download_reconciliation": ("books", "reconciliation-csv"),
    "list_quarantine": ("quarantine", "list"),
    "get_quarantined": ("quarantine", "get"),
    "decide_quarantined": ("quarantine", "decide"),
}
"""Operations whose path names something else than what people think of."""

_VERB_BY_METHOD: Final = {"POST": "create", "PUT": "put", "PATCH": "change", "DELETE": "delete"}

Commands = Mapping[str, Mapping[str, Outline]]


class NameTakenError(ValueError):
    """Two operations would have one command."""


def commands(outlines: Iterable[Outline]) -> Commands:
    """Every operation, by noun and verb; in alphabetical order of the nouns.

    Raises:
        NameTakenError: two of them have the same name.
    """
    shared: dict[str, dict[str, Outline]] = {}
    of_orgs: dict[str, dict[str, Outline]] = {}
    excepted: dict[str, dict[str, Outline]] = {}
    for outline in outlines:
        noun, verb = _name(outline)
        kind = excepted if outline.operation_id in _EXCEPTIONS else of_orgs if _is_of_org(outline) else shared
        verbs = kind.setdefault(noun, {})
        if verb in verbs:
            raise NameTakenError(f"{outline.operation_id} and {verbs[verb].operation_id} are both `{noun} {verb}`")
        verbs[verb] = outline
    named = dict(of_orgs)
    for noun, verbs in shared.items():
        if verbs.keys() & of_orgs.get(noun, {}).keys():
            named[f"platform-{noun}"] = verbs
        else:
            named[noun] = {**named.get(noun, {}), **verbs}
    for noun, verbs in excepted.items():
        named[noun] = {**named.get(noun, {}), **verbs}
    return {noun: dict(sorted(named[noun].items(), key=_usual_order)) for noun in sorted(named)}


def _is_of_org(outline: Outline) -> bool:
    return outline.segments[:2] == ["orgs", _ORG_SEGMENT]


def _name(outline: Outline) -> tuple[str, str]:
    if outline.operation_id in _EXCEPTIONS:
        return _EXCEPTIONS[outline.operation_id]
    segments = outline.segments
    if segments[:2] == ["orgs", _ORG_SEGMENT] and len(segments) > len(("orgs", _ORG_SEGMENT)):
        segments = segments[2:]
    noun = segments[0]
    said = outline.operation_id.removesuffix("_of_org").split("_")
    rest = [word for word in said if word not in _forms(noun)]
    if len(rest) < len(said) and rest:
        return noun, "-".join(rest)
    if all(segment.startswith("{") for segment in segments[1:]):
        reads_one = len(segments) > 1
        return noun, _VERB_BY_METHOD.get(outline.method, "get" if reads_one else "list")
    return noun, "-".join(said)


def _forms(noun: str) -> set[str]:
    """The words of a noun, in the plural and in the singular."""
    words = noun.split("-")
    return {
        *words,
        *(word.removesuffix("s") for word in words),
        *(f"{word[:-3]}y" for word in words if word[-3:] == "ies"),
    }


def _usual_order(named: tuple[str, Outline]) -> tuple[int, str]:
    usual = ("list", "get", "create", "put", "change")
    verb = named[0]
    return (usual.index(verb) if verb in usual else len(usual), verb)
