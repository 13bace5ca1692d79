"""OpenAI's batches: each line of the input is answered as a request of its own, once its time has come. An edge: it knows aiohttp.

Nothing runs meanwhile: what a batch has come to is worked out when somebody asks. Of the knobs, `latency_ms` says how long a line takes,
`error` with a status puts it into the file of errors, `no_usage` leaves its usage out, and `timeout` never answers it.

Source: OpenAI's API reference, batches.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from aiohttp import web

from gateway_core.clock import Now
from simulator import plain
from simulator.chat import JsonObject, Stamp, without_directives
from simulator.compose import compose
from simulator.dialect import Body, Dialect, parse_body
from simulator.frames import compact
from simulator.knobs import Fault, InvalidKnobsError, Knobs, take_directives, turn
from simulator.openai_chat import OpenAiChat
from simulator.openai_completions import OpenAiCompletions
from simulator.openai_kept import OpenAiKept
from simulator.openai_responses import OpenAiResponses
from simulator.refusal import RefusalError
from simulator.shelves import BatchLine, KeptBatch, KeptFile, Shelf
from simulator.words import fingerprint

BATCHES: Final = "/v1/batches"
_EMBEDDINGS: Final = "/v1/embeddings"
_WINDOW: Final = timedelta(hours=24)


class _Creation(Body):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class _Line(Body):
    custom_id: str
    method: str
    url: str
    body: JsonObject


@dataclass(frozen=True, slots=True)
class OpenAiBatches:
    """Answers what is about batches."""

    kept: OpenAiKept
    knobs: Knobs
    now: Now

    def routes(self) -> list[web.RouteDef]:
        """Where it answers."""
        return [
            web.post(BATCHES, self.kept.to(self._create)),
            web.get(BATCHES, self.kept.to(self._list)),
            web.get(BATCHES + "/{id}", self.kept.to(self._show)),
            web.post(BATCHES + "/{id}/cancel", self.kept.to(self._cancel)),
        ]

    async def _create(self, request: web.Request, shelf: Shelf) -> web.Response:
        asked = parse_body(_Creation, await request.read())
        content = shelf.file(asked.input_file_id).content
        lines = tuple(self._answered(asked.endpoint, line, shelf) for line in content.splitlines() if line.strip())
        now = self.now()
        said: JsonObject = {
            "id": shelf.shelves.new_id("batch"),
            "object": "batch",
            "endpoint": asked.endpoint,
            "errors": None,
            "input_file_id": asked.input_file_id,
            "completion_window": asked.completion_window,
            "created_at": int(now.timestamp()),
            "in_progress_at": int(now.timestamp()),
            "expires_at": int((now + _WINDOW).timestamp()),
            "metadata": asked.metadata,
        }
        batch = KeptBatch(said, lines, now)
        shelf.put(str(said["id"]), batch)
        return _json(self._said(batch, shelf))

    async def _list(self, request: web.Request, shelf: Shelf) -> web.Response:
        found = [self._said(batch, shelf) for batch in shelf.shelves.batches(shelf.credential)]
        begin = next((n + 1 for n, each in enumerate(found) if each["id"] == request.query.get("after")), 0)
        limit = int(request.query.get("limit", "20"))
        return _json({"object": "list", "data": found[begin : begin + limit], "has_more": len(found) > begin + limit})

    async def _show(self, request: web.Request, shelf: Shelf) -> web.Response:
        return _json(self._said(shelf.batch(request.match_info["id"]), shelf))

    async def _cancel(self, request: web.Request, shelf: Shelf) -> web.Response:
        batch = shelf.batch(request.match_info["id"])
        if self._said(batch, shelf)["status"] != "in_progress":
            raise RefusalError(400, "Cannot cancel a batch that is over.")
        cancelled = replace(batch, cancelled_at=self.now())
        shelf.put(str(batch.said["id"]), cancelled)
        return _json(self._said(cancelled, shelf))

    def _said(self, batch: KeptBatch, shelf: Shelf) -> JsonObject:
        """What a batch has come to by now. Its files are made when that is first seen to be all."""
        until = batch.cancelled_at or self.now()
        done: list[BatchLine] = []
        undone: list[BatchLine] = []
        for line in batch.lines:
            (done if line.is_done(batch.created_at, until) else undone).append(line)
        good = sum(line.is_good for line in done)
        is_over = batch.cancelled_at is not None or len(done) == len(batch.lines)
        counts: JsonObject = {"total": len(batch.lines), "completed": good, "failed": len(done) - good}
        if not is_over:
            return batch.said | {"status": "in_progress", "request_counts": counts}
        status = "completed" if batch.cancelled_at is None else "cancelled"
        ended: JsonObject = {"status": status, f"{status}_at": int(until.timestamp()), "request_counts": counts}
        return batch.said | ended | self._files(batch, done, undone, shelf)

    def _files(self, batch: KeptBatch, done: list[BatchLine], undone: list[BatchLine], shelf: Shelf) -> JsonObject:
        unanswered: list[JsonObject] = [
            {"id": "", "custom_id": line.custom_id, "response": None, "error": {"code": "batch_cancelled"}}
            for line in undone
        ]
        contents: Mapping[str, list[JsonObject]] = {
            "output_file_id": [line.answer for line in done if line.is_good],
            "error_file_id": [*(line.answer for line in done if not line.is_good), *unanswered],
        }
        found: JsonObject = {}
        for name, lines in contents.items():
            # The same whenever it is asked for.
            file_id = f"file-{fingerprint((str(batch.said['id']), name))[:16]}"
            if lines and shelf.shelves.find(shelf.credential, file_id) is None:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                shelf.put(
                    file_id, KeptFile(self.kept.describe(file_id, f"{file_id}.jsonl", "batch_output", content), content)
                )
            found[name] = file_id if lines else None
        return found

    def _answered(self, endpoint: str, raw: bytes, shelf: Shelf) -> BatchLine:
        line = parse_body(_Line, raw)
        if line.url != endpoint:
            raise RefusalError(400, "The URL of a line is not that of the batch.", param="url")
        stamp = Stamp(fingerprint((line.url, raw)), self.now())
        try:
            knobs, body = self._answer(endpoint, compact(line.body).encode(), stamp, shelf)
        except RefusalError as refusal:
            return _refused(line.custom_id, stamp, refusal, Knobs())
        fault = knobs.fault(stamp.digest)
        if fault is not None and fault.status is not None:
            return _refused(line.custom_id, stamp, RefusalError(fault.status), knobs)
        if fault is Fault.NO_USAGE:
            body.pop("usage", None)
        return _line(line.custom_id, stamp, 200, body, knobs)

    def _answer(self, endpoint: str, body: bytes, stamp: Stamp, shelf: Shelf) -> tuple[Knobs, JsonObject]:
        if endpoint == _EMBEDDINGS:
            found = plain.embeddings(body, stamp)
            answer = found.body if isinstance(found.body, dict) else {}
            return self._turned(take_directives(found.text)[1]), answer | {"usage": found.usage}
        dialects: Mapping[str, Dialect] = {
            "/v1/chat/completions": OpenAiChat(),
            "/v1/completions": OpenAiCompletions(),
            "/v1/responses": OpenAiResponses(shelf),
        }
        if endpoint not in dialects:
            raise RefusalError(400, "Batches have no such endpoint.", param="endpoint")
        dialect = dialects[endpoint]
        chat, directives = without_directives(dialect.parse(body))
        knobs = self._turned(directives)
        return knobs, dialect.unary(compose(chat, knobs, knobs.fault(stamp.digest), stamp))

    def _turned(self, directives: str) -> Knobs:
        try:
            return turn(self.knobs, directives)
        except InvalidKnobsError as error:
            raise RefusalError(400, f"Invalid knobs: {error}") from error


def _refused(custom_id: str, stamp: Stamp, refusal: RefusalError, knobs: Knobs) -> BatchLine:
    return _line(custom_id, stamp, refusal.status, OpenAiChat().error(refusal, stamp), knobs)


def _line(custom_id: str, stamp: Stamp, status: int, body: JsonObject, knobs: Knobs) -> BatchLine:
    answer: JsonObject = {
        "id": stamp.id("batch_req_", 24),
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": stamp.id("req_", 24), "body": body},
        "error": None,
    }
    takes = None if knobs.error is Fault.TIMEOUT else timedelta(milliseconds=knobs.latency_ms)
    return BatchLine(custom_id, answer, takes, is_good=status == 200)  # noqa: PLR2004 - OK


def _json(document: JsonObject) -> web.Response:
    return web.json_response(document, dumps=compact)
