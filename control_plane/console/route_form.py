"""A route as a form: a row for each provider with the number of its group, so that the order is written and nothing is dragged. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control_plane.console import forms
from control_plane.console.forms import Form
from control_plane.errors import InvalidField, InvalidFieldsError

_BLANK_ROWS: Final = 3
ROWS_MAX: Final = 256
_NUMBERS: Final = ("attempts_max", "first_byte_timeout_ms", "idle_timeout_ms", "cache_ttl_s")
NEW: Final[Mapping[str, Any]] = {
    "match": "",
    "groups": [],
    "published": True,
    "orgs_allowed": [],
    "attempts_max": None,
    "retry_statuses": None,
    "first_byte_timeout_ms": None,
    "idle_timeout_ms": None,
    "cache_ttl_s": None,
    "strategy": "weighted",
    "sticky_by": None,
}
"""What a route that is not there yet begins with; the names are all that an operator says of one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One provider, or room for one.

    Attributes:
        group: its number, from 1 on; lower ones are tried first.
    """

    group: int
    provider: str
    weight: object


def spec_of_route(route: Mapping[str, Any]) -> dict[str, Any]:
    """What an operator has said of a route, of what the API shows of it."""
    return {name: route[name] for name in NEW}


def rows_of(spec: Mapping[str, Any]) -> Sequence[Row]:
    """A row for each provider, and a few that are empty."""
    groups = spec["groups"]
    filled = [
        Row(number, member["provider"], member["weight"]) for number, group in enumerate(groups, 1) for member in group
    ]
    return [*filled, *(Row(len(groups) + 1, "", 1) for _ in range(_BLANK_ROWS))]


def spec_of(form: Form) -> dict[str, Any]:
    """What is written in the form. Rows without a provider are left out; groups stand in the order of their numbers."""
    groups: dict[int, list[dict[str, object]]] = {}
    for row in range(ROWS_MAX):
        provider = forms.text(form, f"provider_{row}")
        if provider is not None:
            number = forms.whole(form, f"group_{row}")
            weight = forms.whole(form, f"weight_{row}")
            if not isinstance(number, int):
                raise InvalidFieldsError(InvalidField(f"/group_{row}", "a whole number, from 1 on"))
            groups.setdefault(number, []).append({"provider": provider, "weight": 1 if weight is None else weight})
    statuses = [
        int(word) if word.isascii() and word.isdigit() else word for word in forms.words(form, "retry_statuses")
    ]
    return {
        "match": form.get("match", "").strip(),
        "groups": [groups[number] for number in sorted(groups)],
        "published": forms.ticked(form, "published"),
        "orgs_allowed": forms.words(form, "orgs_allowed"),
        "retry_statuses": statuses or None,
        "strategy": form.get("strategy", "weighted"),
        "sticky_by": forms.text(form, "sticky_by"),
        **{name: forms.whole(form, name) for name in _NUMBERS},
    }
