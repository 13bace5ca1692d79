"""What Envoy tells of admitted requests that count against a limit: that they still run, and that they are over.

And of attempts at providers that may be full. Only of those: the access logs that lead here pass over all others. Of requests that came by a lease nobody
waits for a place, so Envoy tells of many at once, and what they used is added up before it is counted.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import grpc
from google.protobuf.struct_pb2 import Value

from ext_authz.attempts import TokensUsed
from ext_authz.reservation_notes import ReservationNotes
from ext_authz.reservations import Amended, Ended, Running
from ext_authz.running_attempts import parse_attempt_entry, parse_use
from ext_authz.used_tokens import text, used_tokens
from gateway_core.contract import GrantField, Metadata
from gateway_core.ids import OrgId, ProviderName, RequestId
from gateway_core.limits import Tally, parse_tallies
from wire.access_log_pb2 import (
    AccessLogType,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"


class Counted(NamedTuple):
    """Where a request counts."""

    org_id: OrgId
    tallies: tuple[Tally, ...]
    at: int


class Heard(NamedTuple):
    """An entry about a reservation.

    Attributes:
        is_leased: whether it came by a lease, and is not counted as open.
        more_tokens: used, than it was expected to, if it is over.
    """

    counted: Counted
    request_id: RequestId
    is_over: bool
    is_leased: bool
    more_tokens: int


def parse_entry(entry: HTTPAccessLogEntry) -> Heard | None:
    """Read an entry; None if it is about no reservation."""
    metadata = entry.common_properties.metadata.filter_metadata
    told = metadata[Metadata.NAMESPACE]
    is_leased = Metadata.LEASE in told.fields
    grant: Mapping[str, Value] = (
        told.fields[Metadata.LEASE].struct_value.fields if is_leased else metadata[Metadata.GRANT_NAMESPACE].fields
    )
    org_id, at = text(grant, GrantField.ORG_ID), text(grant, GrantField.RESERVED_AT)
    expected = text(grant, GrantField.RESERVED_TOKENS)
    try:
        tallies = parse_tallies(text(grant, GrantField.RESERVED_FOR))
    except ValueError:
        return None
    if not (tallies and org_id and at.isdecimal() and expected.isdecimal()):
        return None
    counted = int(told.fields[Metadata.COUNTED_TOKENS].number_value) or int(expected)
    used = used_tokens(entry, counted) or 0
    return Heard(
        Counted(OrgId(org_id), tallies, int(at)),
        RequestId(entry.request.request_id),
        is_over=entry.common_properties.access_log_type != AccessLogType.DOWNSTREAM_PERIODIC,
        is_leased=is_leased,
        more_tokens=used - counted,
    )


class RunningRequests:
    """The gRPC service's one method."""

    def __init__(self, notes: ReservationNotes) -> None:
        self._notes = notes

    async def follow(
        self,
        messages: AsyncIterator[StreamAccessLogsMessage],
        context: "grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse]",  # noqa: ARG002 - gRPC's signature
    ) -> StreamAccessLogsResponse:
        """Take what one Envoy tells."""
        async for message in messages:
            more_tokens: Counter[Counted] = Counter()
            more_at_provider: Counter[ProviderName] = Counter()
            for entry in message.http_logs.log_entry:
                if (attempt := parse_attempt_entry(entry)) is not None:
                    self._notes.put_attempt(attempt)
                    continue
                if (use := parse_use(entry)) is not None:
                    more_at_provider[use.provider] += use.more_tokens
                if (heard := parse_entry(entry)) is None:
                    continue
                counted = heard.counted
                if heard.is_leased:
                    more_tokens[counted] += heard.more_tokens if heard.is_over else 0
                elif heard.is_over:
                    ended = Ended(counted.tallies, heard.request_id, counted.at, heard.more_tokens)
                    self._notes.put(counted.org_id, ended)
                else:
                    self._notes.put(counted.org_id, Running(counted.tallies, heard.request_id))
            for counted, more in more_tokens.items():
                if more:
                    self._notes.put(counted.org_id, Amended(counted.tallies, counted.at, 0, more))
            for provider, more in more_at_provider.items():
                if more:
                    self._notes.put_attempt(TokensUsed(provider, more))
        return StreamAccessLogsResponse()
