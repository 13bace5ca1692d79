"""How many tokens a request has used, from what Envoy tells of it. Pure."""

from collections.abc import Mapping
from typing import Final

from google.protobuf.struct_pb2 import Value

from gateway_core.contract import CacheOutcome, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.provider_usage import is_last_word, parse_usage
from gateway_core.usage import BYTES_PER_TOKEN
from wire.access_log_pb2 import HTTPAccessLogEntry

_NOTHING_UNFINISHED: Final = ("", "{}")


def text(fields: Mapping[str, Value], name: str) -> str:
    """A field of metadata; nothing where it is not there."""
    return fields[name].string_value if name in fields else ""


def used_tokens(entry: HTTPAccessLogEntry, expected: int) -> int | None:
    """All tokens that the provider counts, and what was expected if it does not say, not clearly, or not all.

    Of a client that left, no more than what it sent and got can have been: the provider was hung up on, and what is charged is what was delivered. Who asks
    for much and leaves would else use up what others may.

    None if it did not answer or was not asked.
    """
    told = entry.common_properties.metadata.filter_metadata[Metadata.NAMESPACE]
    asked = told.fields[Metadata.REQUEST].struct_value.fields
    try:
        facts = FACTS[Endpoint(asked[RequestField.ENDPOINT].string_value)]
    except ValueError:
        # A front filter from another version; it counts as what was expected.
        return expected
    if (
        not facts.is_answered(entry.response.response_code.value)
        or text(told.fields, Metadata.CACHE) == CacheOutcome.HIT
    ):
        return None
    flags = entry.common_properties.response_flags
    if (flags.downstream_connection_termination or flags.downstream_remote_reset) and not facts.is_session:
        read = int(asked[RequestField.BODY_BYTES].number_value) // BYTES_PER_TOKEN
        expected = min(expected, read + entry.response.response_body_bytes)
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
    is_all = is_all and text(told.fields, Metadata.UNFINISHED) in _NOTHING_UNFINISHED
    return used if is_all else max(used, expected)
