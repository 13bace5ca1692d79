"""What Envoy tells of admitted requests that count against a limit: that they still run, and that they are over.

Only of those: the access logs that lead here pass over every request without a reservation. Of requests that came by a lease nobody
waits for a place, so Envoy tells of many at once, and what they used is added up before it is counted.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Final, NamedTuple

import grpc
from google.protobuf.struct_pb2 import Struct, Value

from ext_authz.reservation_notes import ReservationNotes
from ext_authz.reservations import Amended, Ended, Running
from gateway_core.contract import CacheOutcome, GrantField, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import Tally, parse_tallies
from gateway_core.provider_usage import is_last_word, parse_usage
from wire.access_log_pb2 import (
    AccessLogType,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"
_NOTHING_UNFINISHED: Final = ("", "{}")


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
    org_id, at = _text(grant, GrantField.ORG_ID), _text(grant, GrantField.RESERVED_AT)
    expected = _text(grant, GrantField.RESERVED_TOKENS)
    try:
        tallies = parse_tallies(_text(grant, GrantField.RESERVED_FOR))
    except ValueError:
        return None
    if not (tallies and org_id and at.isdecimal() and expected.isdecimal()):
        return None
    counted = int(told.fields[Metadata.COUNTED_TOKENS].number_value) or int(expected)
    used = _used(told, entry.response.response_code.value, counted)
    return Heard(
        Counted(OrgId(org_id), tallies, int(at)),
        RequestId(entry.request.request_id),
        is_over=entry.common_properties.access_log_type != AccessLogType.DOWNSTREAM_PERIODIC,
        is_leased=is_leased,
        more_tokens=used - counted,
    )


def _text(fields: Mapping[str, Value], name: str) -> str:
    return fields[name].string_value if name in fields else ""


def _used(told: Struct, status: int, expected: int) -> int:
    """All tokens that the provider counts; none if it did not answer or was not asked, and what was expected if it does not say, not clearly, or not all."""
    asked = told.fields[Metadata.REQUEST].struct_value.fields
    try:
        facts = FACTS[Endpoint(asked[RequestField.ENDPOINT].string_value)]
    except ValueError:
        # A front filter from another version; it counts as what was expected.
        return expected
    if not facts.is_answered(status) or _text(told.fields, Metadata.CACHE) == CacheOutcome.HIT:
        return 0
    first, last = told.fields[Metadata.USAGE_FIRST].string_value, told.fields[Metadata.USAGE_LAST].string_value or None
    if not first:
        return expected
    try:
        used = parse_usage(facts.dialect, first, last).total_tokens
    except ValueError:
        # A usage that nobody can read is billing_sink's to set aside.
        return expected
    is_all = is_last_word(facts.dialect, stream=asked[RequestField.STREAM].bool_value, last=last)
    # A session that was left in the middle of a response used more than it says.
    is_all = is_all and _text(told.fields, Metadata.UNFINISHED) in _NOTHING_UNFINISHED
    return used if is_all else max(used, expected)


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
            for entry in message.http_logs.log_entry:
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
        return StreamAccessLogsResponse()
