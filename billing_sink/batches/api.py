"""`/v1/batches`, as Envoy hands it on: what is done with batches, for the organisation that ext_authz has named."""

from typing import Annotated, ClassVar, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from billing_sink.batches.cancellation import Cancellation
from billing_sink.batches.creation import Creation, Wish
from billing_sink.batches.model import Batch, BatchRefusedError
from billing_sink.batches.postgres_batches import PostgresBatches
from gateway_core.contract import Header
from gateway_core.endpoints import FACTS, IN_BATCHES, Endpoint
from gateway_core.errors import API_KEY_ENDED, INVALID_INPUT, ApiError, no_such
from gateway_core.ids import KeyId, OrgId
from gateway_core.kept import KeptKind, KeptName, ObjectId, checked_id
from gateway_core.mode import Mode

PAGE_MAX: Final = 100
_STRICT: Final = ConfigDict(extra="forbid", frozen=True)


class BatchBody(BaseModel):
    """What a client sends to begin one."""

    model_config: ClassVar[ConfigDict] = _STRICT

    input_file_id: str
    endpoint: str
    completion_window: Annotated[str, StringConstraints(pattern="^24h$")]
    metadata: Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=64)],
            Annotated[str, StringConstraints(max_length=512)],
        ],
        Field(max_length=16),
    ] = {}


class BatchQuery(BaseModel):
    """Which part of the list."""

    model_config: ClassVar[ConfigDict] = _STRICT

    limit: int = Field(default=20, ge=1, le=PAGE_MAX)
    after: str | None = None


class BatchesApi:
    """The four operations, for whom Envoy says."""

    def __init__(self, batches: PostgresBatches, creation: Creation, cancellation: Cancellation) -> None:
        self._batches = batches
        self._creation = creation
        self._cancellation = cancellation

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        handlers = {
            Endpoint.BATCH_CREATE: self._create,
            Endpoint.BATCHES: self._list,
            Endpoint.BATCH: self._show,
            Endpoint.BATCH_CANCEL: self._cancel,
        }
        return [
            web.route(FACTS[endpoint].method, FACTS[endpoint].path, handler) for endpoint, handler in handlers.items()
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        wish = _wish(await request.read())
        key = await self._batches.find_key(KeyId(request.headers[Header.KEY_ID]))
        if key is None or (key.org_id, key.mode) != _who(request):
            raise BatchRefusedError(API_KEY_ENDED)
        return web.json_response((await self._creation.begin(wish, key)).document())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        query = _query(request)
        org_id, mode = _who(request)
        after = None
        if query.after is not None:
            after = await self._found(request, query.after)
        found = await self._batches.list(org_id, mode, after=after, limit=query.limit + 1)
        shown = found[: query.limit]
        return web.json_response(
            {
                "object": "list",
                "data": [batch.document() for batch in shown],
                "first_id": shown[0].batch_id if shown else None,
                "last_id": shown[-1].batch_id if shown else None,
                "has_more": len(found) > query.limit,
            }
        )

    async def _show(self, request: web.Request) -> web.StreamResponse:
        return web.json_response((await self._found(request, request.match_info["id"])).document())

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = await self._found(request, request.match_info["id"])
        await self._cancellation.cancel(batch)
        return web.json_response((await self._found(request, batch.batch_id)).document())

    async def _found(self, request: web.Request, batch_id: str) -> Batch:
        found = await self._batches.find(*_who(request), ObjectId(batch_id))
        if found is None:
            raise BatchRefusedError(no_such(KeptName(KeptKind.BATCH, ObjectId(batch_id))))
        return found


def _who(request: web.Request) -> tuple[OrgId, Mode]:
    return OrgId(request.headers[Header.ORG]), Mode(request.headers[Header.MODE])


def _wish(body: bytes) -> Wish:
    try:
        asked = BatchBody.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from error
    endpoints = {FACTS[endpoint].path: endpoint for endpoint in IN_BATCHES}
    if asked.endpoint not in endpoints:
        message = f"Batches are offered for {', '.join(endpoints)}."
        raise BatchRefusedError(ApiError(400, INVALID_INPUT.code, message, param="endpoint"))
    return Wish(endpoints[asked.endpoint], checked_id(asked.input_file_id), asked.metadata)


def _query(request: web.Request) -> BatchQuery:
    try:
        return BatchQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> BatchRefusedError:
    where = error.errors()[0]["loc"]
    name = str(where[0]) if where else None
    message = (
        "The body is no JSON object." if name is None else f"The field '{name[:64]}' is not what is asked for here."
    )
    return BatchRefusedError(ApiError(400, INVALID_INPUT.code, message, param=name and name[:64]))
