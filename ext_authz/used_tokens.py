"""How many tokens a request has used, from what Envoy tells of it. Pure."""

from collections.abc import Mapping
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value

from gateway_core.contract import CacheOutcome, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.provider_usage import is_last_word, parse_usage

_NOTHING_UNFINISHED: Final = ("", "{}")


def text(fields: Mapping[str, Value], name: str) -> str:
    """A field of metadata; nothing where it is not there."""
    return fields[name].string_value if name in fields else ""


def used_tokens(told: Struct, status: int, expected: int) -> int | None:
    """All tokens that the provider counts, and what was expected if it does not say, not clearly, or not all.

    None if it did not answer or was not asked.
    """
    asked = told.fields[Metadata.REQUEST].struct_value.fields
    try:
        facts = FACTS[Endpoint(asked[RequestField.ENDPOINT].string_value)]
    except ValueError:
        # A front filter from another version; it counts as what was expected.
        return expected
    if not facts.is_answered(status) or text(told.fields, Metadata.CACHE) == CacheOutcome.HIT:
        return None
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
