"""What a schema has to say against a value, in our words and not in those of the library that checks it. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from pydantic_core import ErrorDetails

_WORDS: Final[Mapping[str, str]] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "datetime_type": "must be a time, such as 2027-01-31T18:00:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2027-01-31T18:00:00Z",
    "datetime_parsing": "must be a time, such as 2027-01-31T18:00:00Z",
    "extra_forbidden": "unknown field",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "missing": "is required",
    "string_type": "must be text",
    "timezone_aware": "must have a time zone, such as Z",
}
"""By the kind of fault. What is not here is told in the library's sentence, less its subject."""

_SUBJECT: Final = re.compile(r"^(?:Input|String|List|Tuple|Set|Dictionary|Data|Decimal input|URL) should ")
_OF_OURS: Final = "Value error, "


def in_our_words(fault: ErrorDetails) -> str:
    """What is wrong with a value, to stand behind the name of its field."""
    said = _WORDS.get(fault["type"])
    if said is not None:
        return said
    return _SUBJECT.sub("must ", fault["msg"]).removeprefix(_OF_OURS).replace(" after validation", "")
