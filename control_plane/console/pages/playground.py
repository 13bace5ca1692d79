"""The playground: a chat through the gateway, asked from here so that its key is in no page, and shown as it comes."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import aiohttp
from aiohttp import web
from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.context import SERVICES
from control_plane.api.reading import parse_body, read_body
from control_plane.console.gateway import chat
from control_plane.console.pages.organizations import org_of
from control_plane.console.playground_keys import PlaygroundKeys
from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import ForbiddenError, NotFoundError, ThrottledError, UnauthenticatedError
from control_plane.fields import Body
from gateway_core.api_keys import KeyHash
from gateway_core.contract import Header
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId
from gateway_core.mode import Mode

QUESTION_BYTES_MAX: Final = 1024 * 1024
ANSWERS_PER_VISITOR_MAX: Final = 4
"""That come at once; whoever asks for more is refused."""
_RETRY_AFTER_S: Final = 5
_LOOK_S: Final = 2
"""While nothing comes, how often it is looked whether anybody still waits for it."""
_TAKE_S: Final = 60
"""For a browser to take what is sent to it."""
_PASSED_ON: Final = ("Content-Type", Header.REQUEST_ID)
_UNAUTHORIZED: Final = 401


class Turn(Body):
    """One message of the conversation so far."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1, max_length=200_000)


class Question(Body):
    """What the page sends."""

    model: str = Field(min_length=1, max_length=200)
    mode: Mode = Mode.LIVE
    messages: list[Turn] = Field(min_length=1, max_length=200)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)


@dataclass(frozen=True, slots=True)
class Playground:
    """The page, and whom it asks.

    Attributes:
        url: of the gateway, as this process reaches it.
        keys: what it is asked with.
    """

    url: str
    http: aiohttp.ClientSession
    keys: PlaygroundKeys
    _running: Counter[KeyHash] = field(default_factory=Counter)

    async def show(self, request: web.Request) -> web.Response:
        """GET /orgs/{org_id}/playground."""
        org = await org_of(request)
        services = request.app[SERVICES]
        offered = services.current_catalog().offered_to(OrgId(org["id"]))
        models = sorted(model.name for model in offered if Endpoint.CHAT in model.endpoints)
        modes = [mode.value for mode in Mode if mode is Mode.LIVE or services.has_simulator]
        return page(request, "playground.html", org=org, models=models, modes=modes)

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """POST /orgs/{org_id}/playground: the gateway's answer, byte for byte; a refusal of ours in the same form."""
        services, visitor = request.app[SERVICES], request[VISITOR]
        raw = await read_body(request, bytes_max=QUESTION_BYTES_MAX, within_s=services.body_s)
        question = await parse_body(raw, Question, services.workbench.do, services.circumstances)
        org = await org_of(request)
        org_id = org["id"]
        # A key of theirs may be kept from when they might make one.
        if not visitor.may(Permission.KEYS_WRITE, org["role"]):
            raise ForbiddenError("Your role may make no keys here, and the playground asks with one.")
        key = await self.keys.key_for(visitor, org_id, question.mode)
        body = {**question.model_dump(mode="json", exclude={"mode"}, exclude_none=True), "stream": True}
        with self._place(visitor):
            async with chat(self.http, self.url, key, body) as answer:
                if answer.status == _UNAUTHORIZED:
                    self.keys.forget(visitor, org_id, question.mode)
                response = web.StreamResponse(status=answer.status)
                for name in _PASSED_ON:
                    if name in answer.headers:
                        response.headers[name] = answer.headers[name]
                await response.prepare(request)
                # Once it has begun nothing else can be said: whatever ends it ends what the page gets, which looks for the last event.
                with suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
                    await _pass_on(answer.content, request, response)
        return response

    @contextmanager
    def _place(self, visitor: Visitor) -> Iterator[None]:
        """For an answer that comes.

        Raises:
            ThrottledError: as many as may come do.
        """
        who = visitor.cookie_hash
        if who is None:
            raise UnauthenticatedError
        if self._running[who] >= ANSWERS_PER_VISITOR_MAX:
            raise ThrottledError(_RETRY_AFTER_S)
        self._running[who] += 1
        try:
            yield
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]

    async def show_price(self, request: web.Request) -> web.Response:
        """GET /orgs/{org_id}/playground/{request_id}: what an answer cost; the page asks until it is known."""
        try:
            found = await request[VISITOR].ask("get_request", request_id=request.match_info["request_id"])
        except NotFoundError:
            found = None
        org = {"id": request.match_info["org_id"]}
        return page(request, "_price.html", org=org, request_id=request.match_info["request_id"], found=found)


async def _pass_on(answer: aiohttp.StreamReader, request: web.Request, response: web.StreamResponse) -> None:
    """All of an answer, as long as somebody takes it.

    Raises:
        TimeoutError: nobody took it for too long.
        ClientError: the gateway has broken off.
        ConnectionError: the browser has.
    """
    while not answer.at_eof():
        reading = asyncio.ensure_future(answer.readany())
        try:
            while not (await asyncio.wait([reading], timeout=_LOOK_S))[0]:
                if request.transport is None or request.transport.is_closing():
                    return
            part = reading.result()
        finally:
            reading.cancel()
        async with asyncio.timeout(_TAKE_S):
            await response.write(part)
    await response.write_eof()
