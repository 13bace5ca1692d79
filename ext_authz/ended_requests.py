"""What Envoy tells of admitted requests that count against a limit: that they still run, and that they are over.

Only of those: the access log that leads here passes over every request without a reservation.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.struct_pb2 import Struct

from ext_authz.limiter import Limiter
from gateway_core.contract import GrantField, Metadata, RequestField
from gateway_core.endpoints import DIALECT_BY_ENDPOINT, Endpoint
from gateway_core.ids import KeyId, RequestId
from gateway_core.provider_usage import parse_usage
from wire.access_log_pb2 import (
    AccessLogType,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"

_OK: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Told:
    """One request.

    Attributes:
        is_over: else it still runs.
        at: the second in which it was admitted.
        expected: tokens that it was expected to use.
        tokens: what it has used; what was expected, where nobody says.
    """

    key_id: KeyId
    request_id: RequestId
    is_over: bool
    at: int
    expected: int
    tokens: int


def parse_entry(entry: HTTPAccessLogEntry) -> Told | None:
    """Read an entry; None if it is about no reservation."""
    metadata = entry.common_properties.metadata.filter_metadata
    grant = metadata[Metadata.GRANT_NAMESPACE].fields
    key_id, at = grant[GrantField.KEY_ID].string_value, grant[GrantField.RESERVED_AT].string_value
    expected = grant[GrantField.RESERVED_TOKENS].string_value
    if not (key_id and at.isdecimal() and expected.isdecimal()):
        return None
    is_over = entry.common_properties.access_log_type != AccessLogType.DOWNSTREAM_PERIODIC
    return Told(
        key_id=KeyId(key_id),
        request_id=RequestId(entry.request.request_id),
        is_over=is_over,
        at=int(at),
        expected=int(expected),
        tokens=_used(metadata[Metadata.NAMESPACE], entry.response.response_code.value, int(expected)),
    )


def _used(told: Struct, status: int, expected: int) -> int:
    """All tokens that the provider counts; none if it did not answer, and what was expected if it does not say or not clearly."""
    if status not in _OK:
        return 0
    first, last = told.fields[Metadata.USAGE_FIRST].string_value, told.fields[Metadata.USAGE_LAST].string_value
    if not first:
        return expected
    endpoint = told.fields[Metadata.REQUEST].struct_value.fields[RequestField.ENDPOINT].string_value
    try:
        return parse_usage(DIALECT_BY_ENDPOINT[Endpoint(endpoint)], first, last or None).total_tokens
    except ValueError:
        # A usage that nobody can read is billing_sink's to set aside.
        return expected


class EndedRequests:
    """The gRPC service's one method."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def follow(
        self,
        messages: AsyncIterator[StreamAccessLogsMessage],
        context: "grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse]",  # noqa: ARG002 - gRPC's signature
    ) -> StreamAccessLogsResponse:
        """Take note, one after the other, of what one Envoy tells."""
        async for message in messages:
            for entry in message.http_logs.log_entry:
                told = parse_entry(entry)
                if told is None:
                    continue
                if told.is_over:
                    await self._limiter.finish(
                        told.key_id, told.request_id, at=told.at, expected=told.expected, tokens=told.tokens
                    )
                else:
                    await self._limiter.keep(told.key_id, told.request_id)
        return StreamAccessLogsResponse()
