"""The spool: where its lines are, and what stands in them. Pure.

A field written in Envoy's configuration and read in billing_sink stands here once; a test compares both sides.
"""

from typing import Final

SPOOL_VERSION: Final = 1
"""Schema version of a spool line, its field `v`. Fields may be appended; a changed meaning needs a new version."""

SPOOL_FILE: Final = "access.jsonl"
"""Name of the file inside the spool directory that Envoy appends to."""


class SpoolField:
    """Keys of one spool line (JSON object). `REQUEST` and `GRANT` hold two structs whole: `RequestField` and `GrantField` of `contract.py`."""

    VERSION: Final = "v"
    TYPE: Final = "type"
    REQUEST_ID: Final = "request_id"
    REPLY_ID: Final = "reply_id"
    """The id in the answer: the same, or the only one when what came was not valid HTTP."""
    START_TIME: Final = "start_time"
    DURATION_MS: Final = "duration_ms"
    FIRST_BYTE_MS: Final = "first_byte_ms"
    BEFORE_US: Final = "before_us"
    """From the last byte of the request until the first one was sent to the provider that answered: Envoy, admission, and attempts that failed."""
    AFTER_US: Final = "after_us"
    """From that provider's first byte until the client was sent one."""
    STATUS: Final = "status"
    RESPONSE_FLAGS: Final = "response_flags"
    RESPONSE_DETAILS: Final = "response_details"
    CLUSTER: Final = "cluster"
    ATTEMPTS: Final = "attempts"
    BYTES_RECEIVED: Final = "bytes_received"
    BYTES_SENT: Final = "bytes_sent"
    USER_AGENT: Final = "user_agent"
    REQUEST: Final = "request"
    GRANT: Final = "grant"
    LEASE: Final = "lease"
    """A grant as well, of a request that passed with a lease; then `GRANT` is null."""
    USAGE_FIRST: Final = "usage_first"
    USAGE_LAST: Final = "usage_last"
    SERVICE_TIER: Final = "service_tier"
    KEPT: Final = "kept"
    SSE_EVENTS: Final = "sse_events"
    SSE_BESIDE_BYTES: Final = "sse_beside_bytes"
    UNFINISHED: Final = "unfinished"
    CACHE: Final = "cache"


class AttemptField:
    """Keys of the line about one attempt at an upstream that failed, in the same spool; `TYPE` tells it from lines about requests.

    One that did not fail has none: it is the last of its request, whose own line tells of it. But for one whose answer said that
    nothing is left of the provider's limits: only that is of interest then.
    """

    VERSION: Final = "v"
    TYPE: Final = "type"
    REQUEST_ID: Final = "request_id"
    CLUSTER: Final = "cluster"
    HOST: Final = "host"
    """Address and port, where one had been chosen."""
    OFFERING: Final = "offering"
    """As `RequestField.OFFERING`: it says the provider's own name of the model."""
    START_TIME: Final = "start_time"
    """To the microsecond. The attempts of a request come one after the other, so this tells them apart and says their order."""
    DURATION_MS: Final = "duration_ms"
    STATUS: Final = "status"
    """0 where the upstream had not answered."""
    RESPONSE_FLAGS: Final = "response_flags"
    RESPONSE_DETAILS: Final = "response_details"
    BYTES_RECEIVED: Final = "bytes_received"
    """From the upstream, on the wire."""
    BYTES_SENT: Final = "bytes_sent"
    """To the upstream, on the wire."""
    LIMITS: Final = "limits"
    """As `Header.LIMITS`; null where there was no answer."""
    OWN_REPLY: Final = "own_reply"
    """As `Header.OWN_REPLY`: the flags that count, where the answer is Envoy's own after all; null elsewhere."""
    ORG_ID: Final = "org_id"
    """As `Header.ORG`; null where there was no answer."""
