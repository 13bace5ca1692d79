"""Envoy's external processing stream: protobuf here, `cached_answers` behind it. One stream is one request that wants a cached answer.

Whatever goes wrong here ends the stream, and Envoy goes on as if there were no cache. So does whatever has nothing more to do.
"""

from collections.abc import AsyncIterator, Mapping
from enum import Enum
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway_core.clock import Monotonic
from gateway_core.contract import CACHE_HIT, CacheOutcome, Header, Metadata
from gateway_core.external_processor import Context, header_lines, read_headers, set_headers
from response_cache.answer import Answer, may_be_cached
from response_cache.asked import Fields, UnreadableRequestError, read_asked
from response_cache.cached_answers import CachedAnswers, Trouble, Turn
from response_cache.question import Question, question_of
from wire.ext_proc_pb2 import (
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpStatus,
    ImmediateResponse,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
)

_LONGER_S: Final = 0.5
"""What is left, when a wait is over, to say so."""


class Ended(Enum):
    """How a conversation about a request ended, beside those of `Trouble`."""

    HIT = "hit"
    MISS = "miss"
    NOT_ASKED = "not_asked"
    """Its answer would be another one each time, or is nobody's but its own."""
    UNREADABLE_REQUEST = "unreadable_request"


class Lookups:
    """The gRPC service's one method."""

    def __init__(
        self, cached: CachedAnswers, *, answer_bytes_max: int, monotonic: Monotonic, registry: CollectorRegistry
    ) -> None:
        self._cached = cached
        self._answer_bytes_max = answer_bytes_max
        self._monotonic = monotonic
        self._requests = Counter(
            "tollgate_response_cache_requests_total",
            "Requests that wanted a cached answer",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tollgate_response_cache_seconds",
            "Time until a request is answered or goes on",
            ["outcome"],
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5, 15, 60),
            registry=registry,
        )

    async def process(self, messages: AsyncIterator[ProcessingRequest], context: Context) -> None:
        """Talk with Envoy about one request."""
        told = await anext(messages, None)
        if told is None or not told.HasField("request_headers"):
            return
        # Of the answer nothing is sent unless this asks for it.
        going_on = ProcessingResponse(
            request_headers=HeadersResponse(),
            mode_override=ProcessingMode(
                response_header_mode=ProcessingMode.SEND,
                request_body_mode=ProcessingMode.BUFFERED,
                response_body_mode=ProcessingMode.NONE,
            ),
        )
        await context.write(going_on)
        asked = await anext(messages, None)
        if asked is None or not asked.HasField("request_body"):
            return
        began_s = self._monotonic()
        question = self._question(told, asked.request_body.body)
        if not isinstance(question, Question):
            self._count(question, began_s)
            return

        async def will_wait(seconds: float) -> None:
            longer = ProcessingResponse()
            longer.override_message_timeout.FromMilliseconds(int((seconds + _LONGER_S) * 1000))
            await context.write(longer)

        found = await self._cached.find(question, will_wait)
        match found:
            case Answer():
                self._count(Ended.HIT, began_s)
                await context.write(ProcessingResponse(immediate_response=_again(found)))
            case Turn():
                self._count(Ended.MISS, began_s)
                await self._take_turn(found, messages, context)
            case Trouble():
                self._count(found, began_s)
                await context.write(ProcessingResponse(request_body=BodyResponse()))
                if await self._answered(messages) is not None:
                    await context.write(_miss())

    async def _take_turn(self, turn: Turn, messages: AsyncIterator[ProcessingRequest], context: Context) -> None:
        """See the request through to its answer, and keep that."""
        try:
            await context.write(ProcessingResponse(request_body=BodyResponse()))
            headers = await self._answered(messages)
            if headers is None:
                return
            content_type = headers.get("content-type", "")
            if not may_be_cached(headers.get(":status", ""), content_type):
                await self._cached.refuse(turn)
                await context.write(_miss())
                return
            marked = _miss()
            # Its pieces are seen as they pass.
            marked.mode_override.response_body_mode = ProcessingMode.STREAMED
            await context.write(marked)
            body = bytearray()
            async for message in messages:
                body += message.response_body.body
                if len(body) > self._answer_bytes_max:
                    await self._cached.refuse(turn)
                    return
                if message.response_body.end_of_stream:
                    # Before the client has its end, so that whoever asks after that finds it.
                    await self._cached.keep(turn, Answer(content_type, headers.get(Header.DROPPED, ""), bytes(body)))
                    return
                await context.write(ProcessingResponse(response_body=BodyResponse()))
        finally:
            await self._cached.give_up(turn)

    async def _answered(self, messages: AsyncIterator[ProcessingRequest]) -> Mapping[str, str] | None:
        """The headers of the provider's answer; None if it never came."""
        answered = await anext(messages, None)
        return None if answered is None else read_headers(answered.response_headers.headers)

    def _question(self, told: ProcessingRequest, body: bytes) -> Question | Ended:
        metadata = told.metadata_context.filter_metadata
        ours = metadata[Metadata.NAMESPACE].fields
        lease = ours[Metadata.LEASE].struct_value
        grant = lease if lease.fields else metadata[Metadata.GRANT_NAMESPACE]
        try:
            asked = read_asked(
                _plain(ours[Metadata.REQUEST].struct_value), _plain(grant), header_lines(told.request_headers.headers)
            )
        except UnreadableRequestError:
            return Ended.UNREADABLE_REQUEST
        return question_of(asked, body) or Ended.NOT_ASKED

    def _count(self, outcome: Ended | Trouble, began_s: float) -> None:
        self._requests.labels(outcome.value).inc()
        self._seconds.labels(outcome.value).observe(self._monotonic() - began_s)


def _plain(struct: Struct) -> Fields:
    return {name: value for name, field in struct.fields.items() if (value := _plain_value(field)) is not None}


def _plain_value(field: Value) -> str | float | bool | None:
    match field.WhichOneof("kind"):
        case "string_value":
            return field.string_value
        case "number_value":
            return field.number_value
        case "bool_value":
            return field.bool_value
        case _:
            return None


def _miss() -> ProcessingResponse:
    """Marks the answer of a provider."""
    marked = CommonResponse(header_mutation=set_headers({Header.CACHE: CacheOutcome.MISS}))
    return ProcessingResponse(response_headers=HeadersResponse(response=marked))


def _again(answer: Answer) -> ImmediateResponse:
    said = {"content-type": answer.content_type, Header.CACHE: CacheOutcome.HIT}
    if answer.dropped:
        said[Header.DROPPED] = answer.dropped
    return ImmediateResponse(
        status=HttpStatus(code=200), headers=set_headers(said), body=answer.body, details=CACHE_HIT
    )
