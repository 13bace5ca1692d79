"""Origins of pages, as browsers write them and a setting names them. Pure."""

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

ANY_ORIGIN: Final = "*"


def parse_origins(text: str) -> tuple[str, ...]:
    """Read `https://app.example.com,http://localhost:3000`, or `*` for every origin.

    Raises:
        ValueError: an entry is none as a browser writes it.
    """
    origins = tuple(entry.strip() for entry in text.split(",")) if text.strip() else ()
    for origin in origins:
        parts = urlsplit(origin)
        is_one = parts.scheme in {"http", "https"} and origin == f"{parts.scheme}://{parts.netloc}" and parts.hostname
        if origin != ANY_ORIGIN and (not is_one or not {"@", "*"}.isdisjoint(origin) or origin != origin.lower()):
            raise ValueError("an origin is written like https://app.example.com, in lower case and without a path")
    return origins


def _from_text(value: object) -> object:
    return parse_origins(value) if isinstance(value, str) else value


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_from_text)]
"""A setting written as `https://app.example.com,http://localhost:3000`."""
