"""Envoy's external processing stream: protobuf here, `exchange` behind it. One stream is one attempt.

Whatever goes wrong here ends the stream with an error, and Envoy answers the attempt with 503, which is retried elsewhere.
"""

from collections.abc import AsyncIterator, Callable
from typing import assert_never

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway_core.clock import Monotonic, Now
from gateway_core.contract import Header
from gateway_core.external_processor import Context, read_headers, set_headers
from gateway_core.logs import Logger
from translator.exchange import Announce, Exchange, GiveBack, GoOn, OutOfOrderError, Refuse, SendOn, Step
from translator.translation import NewCallId
from wire.ext_proc_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpStatus,
    ImmediateResponse,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
)


class Translations:
    """The gRPC service's one method."""

    def __init__(
        self,
        *,
        new_call_id: NewCallId,
        now: Now,
        monotonic: Monotonic,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._new_call_id = new_call_id
        self._now = now
        self._monotonic = monotonic
        self._log = log
        self._attempts = Counter(
            "tollgate_translator_attempts_total", "Attempts", ["client", "provider", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "tollgate_translator_seconds",
            "Time that translating one message of Envoy takes",
            ["message"],
            buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1),
            registry=registry,
        )

    async def process(self, messages: AsyncIterator[ProcessingRequest], context: Context) -> None:
        """Translate one attempt."""
        exchange = Exchange(now_s=int(self._now().timestamp()), new_call_id=self._new_call_id)
        try:
            async for message in messages:
                await context.write(self._answered(exchange, message))
        except OutOfOrderError as error:
            self._log.error("attempt_out_of_order", problem=str(error))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "out of order")
        finally:
            if (pair := exchange.pair) is not None:
                self._attempts.labels(pair.client, pair.provider, exchange.outcome.name.lower()).inc()

    def _answered(self, exchange: Exchange, message: ProcessingRequest) -> ProcessingResponse:
        began = self._monotonic()
        kind = message.WhichOneof("request")
        match kind:
            case "request_headers":
                response = _rendered(
                    exchange.request_headers(read_headers(message.request_headers.headers)), _in_headers
                )
            case "request_body":
                response = _rendered(exchange.request_body(message.request_body.body), _in_request_body)
            case "response_headers":
                response = _rendered(
                    exchange.response_headers(read_headers(message.response_headers.headers)), _in_response_headers
                )
            case "response_body":
                body = message.response_body
                response = _rendered(exchange.response_body(body.body, is_last=body.end_of_stream), _in_response_body)
            case None:
                raise OutOfOrderError("a message of another kind")
            case _:
                assert_never(kind)
        self._seconds.labels(kind).observe(self._monotonic() - began)
        return response


def _in_headers(response: CommonResponse) -> ProcessingResponse:
    return ProcessingResponse(request_headers=HeadersResponse(response=response))


def _in_request_body(response: CommonResponse) -> ProcessingResponse:
    return ProcessingResponse(request_body=BodyResponse(response=response))


def _in_response_headers(response: CommonResponse) -> ProcessingResponse:
    return ProcessingResponse(response_headers=HeadersResponse(response=response))


def _in_response_body(response: CommonResponse) -> ProcessingResponse:
    return ProcessingResponse(response_body=BodyResponse(response=response))


def _rendered(step: Step, place: Callable[[CommonResponse], ProcessingResponse]) -> ProcessingResponse:
    match step:
        case GoOn():
            return place(CommonResponse())
        case SendOn(path=path, body=body):
            # Attempts share their headers, so the length is said anew in each.
            headers = set_headers({":path": path, "content-length": str(len(body))})
            return place(CommonResponse(header_mutation=headers, body_mutation=BodyMutation(body=body)))
        case Announce(streamed=streamed, dropped=dropped):
            said = {Header.DROPPED: dropped} if dropped else {}
            if not streamed:
                said["content-type"] = "application/json"
            headers = set_headers(said)
            # Of what the provider sent; Envoy or the next message says the one of what becomes of it.
            headers.remove_headers.append("content-length")
            response = place(CommonResponse(header_mutation=headers))
            if streamed:
                response.mode_override.response_body_mode = ProcessingMode.STREAMED
            return response
        case GiveBack(body=body):
            return place(CommonResponse(body_mutation=BodyMutation(body=body)))
        case Refuse(status=status, body=body, is_untranslatable=is_untranslatable):
            said = {"content-type": "application/json"}
            if is_untranslatable:
                said[Header.UNTRANSLATABLE] = "true"
            immediate = ImmediateResponse(
                status=HttpStatus(code=status), headers=set_headers(said), body=body, details="translator"
            )
            return ProcessingResponse(immediate_response=immediate)
        case _:
            assert_never(step)
