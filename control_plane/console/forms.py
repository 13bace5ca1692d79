"""From the text of a form to the body of an operation: empty fields are null, numbers are numbers, lists are lines. Pure.

What is wrong with a value is for the API to say; here it only gets the type that the API reads.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from control_plane.errors import MalformedBodyError

Form = Mapping[str, str]

_FIELDS_MAX = 500
_DIGITS_MAX = 18


def parse_form(raw: bytes) -> Form:
    """The fields of `application/x-www-form-urlencoded`; of a name that is there twice, the last.

    Raises:
        MalformedBodyError: it is none.
    """
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError as error:
        raise MalformedBodyError("The form cannot be read.") from error
    return dict(pairs)


def text(form: Form, name: str) -> str | None:
    """What is written in a field, without the spaces around it; None for nothing."""
    return form.get(name, "").strip() or None


def whole(form: Form, name: str) -> int | str | None:
    """A whole number; what is none stays text, so that the API says so."""
    value = text(form, name)
    is_number = value is not None and value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX
    return int(value) if value is not None and is_number else value


def ticked(form: Form, name: str) -> bool:
    """Whether a box is ticked."""
    return name in form


def words(form: Form, name: str) -> list[str]:
    """Everything in a field that stands between spaces, commas and line breaks."""
    return form.get(name, "").replace(",", " ").split()


def moment(form: Form, name: str) -> str | None:
    """What a field for date and time holds, which browsers write without a zone and often without seconds: in UTC."""
    value = text(form, name)
    return None if value is None else f"{value}{':00' if value.count(':') == 1 else ''}Z"
