"""What Envoy tells of admitted requests that count against a limit: that they still run, and that they are over.

Only of those: the access log that leads here passes over every request without a reservation. Envoy is never kept waiting: what
it tells is noted down by a few workers, and again if that could not be done.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
from google.protobuf.struct_pb2 import Struct
from prometheus_client import CollectorRegistry, Counter

from ext_authz.limiter import ASK_AGAIN_S, Limiter
from ext_authz.redis_limits import OPEN_S
from ext_authz.reservations import Told
from gateway_core.clock import Monotonic
from gateway_core.contract import CacheOutcome, GrantField, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.ids import KeyId, RequestId
from gateway_core.provider_usage import is_last_word, parse_usage
from gateway_core.usage import HTTP_OK
from wire.access_log_pb2 import (
    AccessLogType,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"

WORKERS: Final = 8
WAITING_MAX: Final = 10_000
"""Of more, the newest are not noted down, and are given up when their time is over."""


def parse_entry(entry: HTTPAccessLogEntry) -> Told | None:
    """Read an entry; None if it is about no reservation."""
    metadata = entry.common_properties.metadata.filter_metadata
    grant = metadata[Metadata.GRANT_NAMESPACE].fields
    key_id, at = grant[GrantField.KEY_ID].string_value, grant[GrantField.RESERVED_AT].string_value
    expected = grant[GrantField.RESERVED_TOKENS].string_value
    if not (key_id and at.isdecimal() and expected.isdecimal()):
        return None
    return Told(
        key_id=KeyId(key_id),
        request_id=RequestId(entry.request.request_id),
        is_over=entry.common_properties.access_log_type != AccessLogType.DOWNSTREAM_PERIODIC,
        at=int(at),
        expected=int(expected),
        tokens=_used(metadata[Metadata.NAMESPACE], entry.response.response_code.value, int(expected)),
    )


def _used(told: Struct, status: int, expected: int) -> int:
    """All tokens that the provider counts; none if it did not answer or was not asked, and what was expected if it does not say, not clearly, or not all."""
    if status not in HTTP_OK or told.fields[Metadata.CACHE].string_value == CacheOutcome.HIT:
        return 0
    first, last = told.fields[Metadata.USAGE_FIRST].string_value, told.fields[Metadata.USAGE_LAST].string_value or None
    if not first:
        return expected
    asked = told.fields[Metadata.REQUEST].struct_value.fields
    try:
        dialect = FACTS[Endpoint(asked[RequestField.ENDPOINT].string_value)].dialect
        used = parse_usage(dialect, first, last).total_tokens
    except ValueError:
        # A usage that nobody can read is billing_sink's to set aside.
        return expected
    is_all = is_last_word(dialect, stream=asked[RequestField.STREAM].bool_value, last=last)
    return used if is_all else max(used, expected)


class RunningRequests:
    """The gRPC service's one method, and the workers behind it."""

    def __init__(self, limiter: Limiter, *, monotonic: Monotonic, registry: CollectorRegistry) -> None:
        self._limiter = limiter
        self._monotonic = monotonic
        self._waiting: asyncio.Queue[tuple[Told, float]] = asyncio.Queue(WAITING_MAX)
        self._dropped = Counter(
            "tollgate_ext_authz_ends_dropped",
            "Ends of requests of keys with limits that were not noted down; the requests count as running for half a minute",
            registry=registry,
        )

    async def follow(
        self,
        messages: AsyncIterator[StreamAccessLogsMessage],
        context: "grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse]",  # noqa: ARG002 - gRPC's signature
    ) -> StreamAccessLogsResponse:
        """Take what one Envoy tells."""
        async for message in messages:
            for entry in message.http_logs.log_entry:
                if (told := parse_entry(entry)) is not None:
                    self._take(told)
        return StreamAccessLogsResponse()

    def _take(self, told: Told) -> None:
        try:
            self._waiting.put_nowait((told, self._monotonic()))
        except asyncio.QueueFull:
            self._dropped.inc()

    async def work(self) -> None:
        """Note down, for ever, what was told; what cannot be noted now is, later, as long as it is of use."""
        while True:
            told, heard_s = await self._waiting.get()
            while not await self._limiter.note(told):
                if self._monotonic() > heard_s + OPEN_S:
                    self._dropped.inc()
                    break
                await asyncio.sleep(ASK_AGAIN_S)
