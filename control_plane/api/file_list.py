"""`GET /v1/files`: the files that providers keep for the organisation of the caller's key, in OpenAI's form.

No provider is asked: its own list has the files of all tenants. A file is told as its provider described it when it was made.
"""

import json
from dataclasses import replace
from typing import ClassVar, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.api.context import SERVICES
from control_plane.errors import ApiRefusedError, NoTestModeError
from control_plane.kept.postgres_files import find_place, list_files
from gateway_core.errors import INVALID_INPUT, no_such
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode

PAGE_MAX: Final = 1000


class FileQuery(BaseModel):
    """Which part of the list. OpenAI's own bound on `limit` is higher; what is cut off is behind `has_more`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=PAGE_MAX, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    purpose: str | None = None


async def show_files(request: web.Request) -> web.Response:
    """One page of them."""
    services = request.app[SERVICES]
    key = await services.authenticator.api_key(request)
    if key.mode is Mode.TEST and not services.has_simulator:
        raise NoTestModeError
    query = _query(request)
    after = None
    if query.after is not None:
        after = await find_place(services.pool, key.org_id, key.mode, ObjectId(query.after))
        if after is None:
            raise ApiRefusedError(no_such(KeptName(KeptKind.FILE, ObjectId(query.after))))
    limit = min(query.limit, PAGE_MAX)
    found = await list_files(
        services.pool,
        key.org_id,
        key.mode,
        purpose=query.purpose,
        after=after,
        newest_first=query.order == "desc",
        limit=limit + 1,
        now=services.now(),
    )
    shown = found[:limit]
    return web.json_response(
        {
            "object": "list",
            "data": [json.loads(file.about) for file in shown],
            "first_id": shown[0].object_id if shown else None,
            "last_id": shown[-1].object_id if shown else None,
            "has_more": len(found) > limit,
        }
    )


def _query(request: web.Request) -> FileQuery:
    try:
        return FileQuery.model_validate(dict(request.query))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise ApiRefusedError(
            replace(INVALID_INPUT, message=f"The parameter '{name}' is not one.", param=name)
        ) from error
