"""OpenAI's files, and what can be done with a response that is kept. An edge: it knows aiohttp.

Sources: the API references of OpenAI, files and responses.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from gateway_core.api_keys import bearer_token
from gateway_core.clock import Now
from simulator.chat import JsonObject, Stamp
from simulator.forms import parse_form
from simulator.frames import compact
from simulator.openai_chat import OpenAiChat
from simulator.recorder import Recorder
from simulator.refusal import RefusalError
from simulator.shelves import KeptFile, Shelf, Shelves
from simulator.words import fingerprint

RESPONSES: Final = "/v1/responses/{id}"
FILES: Final = "/v1/files"

Answer = Callable[[web.Request, Shelf], Awaitable[web.Response]]


class OpenAiKept:
    """Answers what is about something kept. No knob reaches it."""

    def __init__(self, shelves: Shelves, recorder: Recorder | None, now: Now) -> None:
        self._shelves = shelves
        self._recorder = recorder
        self._now = now
        self._dialect = OpenAiChat()

    def routes(self) -> list[web.RouteDef]:
        """Where it answers."""
        return [
            web.get(RESPONSES, self.to(self._response)),
            web.get(RESPONSES + "/input_items", self.to(self._input_items)),
            web.post(RESPONSES + "/cancel", self.to(self._cancel)),
            web.delete(RESPONSES, self.to(self._delete_response)),
            web.post(FILES, self.to(self._upload)),
            web.get(FILES, self.to(self._files)),
            web.get(FILES + "/{id}", self.to(self._file)),
            web.get(FILES + "/{id}/content", self.to(self._content)),
            web.delete(FILES + "/{id}", self.to(self._delete_file)),
        ]

    def to(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that records, demands a credential, and answers from the shelf of that."""

        async def handle(request: web.Request) -> web.Response:
            if self._recorder is not None:
                self._recorder.record(request, await request.read())
            stamp = Stamp(fingerprint((request.path,)), self._now())
            try:
                self._dialect.check_headers(request.headers, request.query)
                credential = bearer_token(request.headers.get("authorization"))
                response = await answer(request, self._shelves.of(credential or ""))
            except RefusalError as refusal:
                response = _json(self._dialect.error(refusal, stamp), refusal.status)
            response.headers.update(self._dialect.headers(stamp, status=response.status, latency_ms=0))
            return response

        return handle

    async def _response(self, request: web.Request, shelf: Shelf) -> web.Response:
        return _json(shelf.response(request.match_info["id"]).said)

    async def _input_items(self, request: web.Request, shelf: Shelf) -> web.Response:
        items = list(reversed(shelf.response(request.match_info["id"]).input_items))
        return _json(
            {
                "object": "list",
                "data": items,
                "first_id": items[0]["id"] if items else None,
                "last_id": items[-1]["id"] if items else None,
                "has_more": False,
            }
        )

    async def _cancel(self, request: web.Request, shelf: Shelf) -> web.Response:
        shelf.response(request.match_info["id"])
        raise RefusalError(400, "Cannot cancel a synchronous response.")

    async def _delete_response(self, request: web.Request, shelf: Shelf) -> web.Response:
        response_id = request.match_info["id"]
        shelf.response(response_id)
        shelf.remove(response_id)
        return _json({"id": response_id, "object": "response", "deleted": True})

    async def _upload(self, request: web.Request, shelf: Shelf) -> web.Response:
        form = parse_form(await request.read())
        if "file" not in form.files or not form.texts.get("purpose"):
            raise RefusalError(400, "'file' and 'purpose' are required", param="purpose")
        file_id = self._shelves.new_id("file").replace("_", "-")
        content = form.files["file"]
        said = self.describe(file_id, form.filenames["file"], form.texts["purpose"], content)
        shelf.put(file_id, KeptFile(said, content))
        return _json(said)

    def describe(self, file_id: str, filename: str, purpose: str, content: bytes) -> JsonObject:
        """What is said of a file that is made now."""
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(self._now().timestamp()),
            "expires_at": None,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }

    async def _files(self, _request: web.Request, shelf: Shelf) -> web.Response:
        found = [file.said for file in self._shelves.files(shelf.credential)]
        return _json({"object": "list", "data": found, "has_more": False})

    async def _file(self, request: web.Request, shelf: Shelf) -> web.Response:
        return _json(shelf.file(request.match_info["id"]).said)

    async def _content(self, request: web.Request, shelf: Shelf) -> web.Response:
        file = shelf.file(request.match_info["id"])
        return web.Response(body=file.content, content_type="application/octet-stream")

    async def _delete_file(self, request: web.Request, shelf: Shelf) -> web.Response:
        file_id = request.match_info["id"]
        shelf.file(file_id)
        shelf.remove(file_id)
        return _json({"id": file_id, "object": "file", "deleted": True})


def _json(document: JsonObject, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, dumps=compact)
