"""Lists of the API, read to their end."""

from typing import Any, Final

from tollgate.client import Client

_AT_ONCE: Final = "200"


def every(client: Client, path: str) -> list[dict[str, Any]]:
    """All things of a list behind `/api/v1`."""
    found: list[dict[str, Any]] = []
    query = {"limit": _AT_ONCE}
    while True:
        page = client.get(path, **query)
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
