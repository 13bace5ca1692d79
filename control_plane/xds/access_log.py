"""Which fields of a request go into the spool: one JSON line when it ends.

Before that, one for each attempt at an upstream that failed. Beside them, whom else it is told that a request is over: ext_authz, where
it counts against a limit.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.xds.lua import FRONT_FILTER
from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core.clusters import Cluster
from gateway_core.contract import AttemptCount, GrantField, Header, Metadata, RouteField
from gateway_core.provider_limits import NOTHING_LEFT
from gateway_core.spool_fields import SPOOL_FILE, SPOOL_VERSION, AttemptField, SpoolField

STILL_RUNNING_INTERVAL: Final = "10s"
"""How often ext_authz is told of what runs, and counts against a limit, that it does."""

_FAILED_FROM: Final = 400
_COUNTS: Final = (GrantField.RESERVED_AT, GrantField.EXPECTED_TOKENS)
"""By which of its grant a request counts against a limit: one of its own, or one of tokens that a provider has."""
_BUFFER_BYTES: Final = 65_536
_LEASED_FLUSH_INTERVAL: Final = "0.2s"
_NO_PROBE: Final[JsonObject] = {"not_health_check_filter": {}}
_NO_OPTIONS: Final[JsonObject] = {
    "header_filter": {"header": {"name": ":method", "string_match": {"exact": "OPTIONS"}, "invert_match": True}}
}
"""By the method and nothing else: no request that a provider is asked for has it, so none could hide behind it."""
_NO_REPORT: Final[JsonObject] = {"log_type_filter": {"types": ["DownstreamPeriodic"], "exclude": True}}
"""Nothing is charged before its end, so the spool has no line of what still runs."""


def spool_log(spool_dir: str, *, answers_browsers: bool) -> JsonObject:
    """The access log that billing_sink reads. A field without a value is null, not absent."""
    line: dict[str, Json] = {
        SpoolField.VERSION: SPOOL_VERSION,
        SpoolField.TYPE: "%ACCESS_LOG_TYPE%",
        SpoolField.REQUEST_ID: f"%REQ({Header.REQUEST_ID})%",
        SpoolField.REPLY_ID: f"%RESP({Header.REQUEST_ID})%",
        SpoolField.START_TIME: "%START_TIME%",
        SpoolField.DURATION_MS: "%DURATION%",
        SpoolField.FIRST_BYTE_MS: "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:ms)%",
        SpoolField.BEFORE_US: "%COMMON_DURATION(DS_RX_END:US_TX_BEG:us)%",
        SpoolField.AFTER_US: "%COMMON_DURATION(US_RX_BEG:DS_TX_BEG:us)%",
        SpoolField.STATUS: "%RESPONSE_CODE%",
        SpoolField.RESPONSE_FLAGS: "%RESPONSE_FLAGS%",
        SpoolField.RESPONSE_DETAILS: "%RESPONSE_CODE_DETAILS%",
        SpoolField.CLUSTER: "%UPSTREAM_CLUSTER%",
        SpoolField.ATTEMPTS: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        SpoolField.BYTES_RECEIVED: "%BYTES_RECEIVED%",
        SpoolField.BYTES_SENT: "%BYTES_SENT%",
        SpoolField.USER_AGENT: "%REQ(user-agent):200%",
        SpoolField.REQUEST: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.REQUEST})%",
        SpoolField.GRANT: f"%DYNAMIC_METADATA({Metadata.GRANT_NAMESPACE})%",
        SpoolField.LEASE: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.LEASE})%",
        SpoolField.USAGE_FIRST: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.USAGE_FIRST})%",
        SpoolField.USAGE_LAST: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.USAGE_LAST})%",
        SpoolField.SERVICE_TIER: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.SERVICE_TIER})%",
        SpoolField.KEPT: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.KEPT})%",
        SpoolField.SSE_EVENTS: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.SSE_EVENTS})%",
        SpoolField.SSE_BESIDE_BYTES: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.SSE_BESIDE_BYTES})%",
        SpoolField.UNFINISHED: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.UNFINISHED})%",
        SpoolField.CACHE: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.CACHE})%",
    }
    told: list[Json] = [_NO_REPORT, _NO_PROBE, *([_NO_OPTIONS] if answers_browsers else [])]
    return {
        "name": "spool",
        "filter": {"and_filter": {"filters": told}},
        "typed_config": _appended_to(spool_dir, line),
    }


def attempts_log(spool_dir: str) -> JsonObject:
    """The router's own log, in the same file: attempts that failed, or have used a provider's limits up, and no others.

    So it costs nothing where all is well.
    """
    line: dict[str, Json] = {
        AttemptField.VERSION: SPOOL_VERSION,
        AttemptField.TYPE: "%ACCESS_LOG_TYPE%",
        AttemptField.REQUEST_ID: f"%REQ({Header.REQUEST_ID})%",
        AttemptField.CLUSTER: "%UPSTREAM_CLUSTER%",
        AttemptField.HOST: "%UPSTREAM_HOST%",
        AttemptField.OFFERING: f"%METADATA(ROUTE:{FRONT_FILTER}:{RouteField.OFFERING})%",
        AttemptField.START_TIME: "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
        AttemptField.DURATION_MS: "%DURATION%",
        AttemptField.STATUS: "%RESPONSE_CODE%",
        AttemptField.RESPONSE_FLAGS: "%RESPONSE_FLAGS%",
        AttemptField.RESPONSE_DETAILS: "%RESPONSE_CODE_DETAILS%",
        AttemptField.BYTES_RECEIVED: "%UPSTREAM_WIRE_BYTES_RECEIVED%",
        AttemptField.BYTES_SENT: "%UPSTREAM_WIRE_BYTES_SENT%",
        AttemptField.LIMITS: f"%RESP({Header.LIMITS})%",
        AttemptField.OWN_REPLY: f"%RESP({Header.OWN_REPLY})%",
        AttemptField.ORG_ID: f"%RESP({Header.ORG})%",
    }
    told: list[Json] = [
        {"response_flag_filter": {}},
        {
            "status_code_filter": {
                "comparison": {
                    "op": "GE",
                    "value": {"default_value": _FAILED_FROM, "runtime_key": "tollgate.attempts.failed_from"},
                }
            }
        },
        {
            "extension_filter": {
                "name": "envoy.access_loggers.extension_filters.cel",
                "typed_config": typed(
                    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    expression=f"response.headers['{Header.LIMITS}'].contains('{NOTHING_LEFT}')",
                ),
            }
        },
    ]
    return {
        "name": "attempts",
        "filter": {"or_filter": {"filters": told}},
        "typed_config": _appended_to(spool_dir, line),
    }


def _appended_to(spool_dir: str, line: JsonObject) -> JsonObject:
    return typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=f"{spool_dir}/{SPOOL_FILE}",
        log_format={"json_format": line},
    )


def limits_log() -> JsonObject:
    """Tells ext_authz of requests that count against a limit, and of no others: that they still run, and that they are over."""
    # At once: the next request may wait for it.
    return _told_to_ext_authz(
        "limits", [(Metadata.GRANT_NAMESPACE, each) for each in _COUNTS], {"buffer_size_bytes": 0}
    )


def attempts_count_log() -> JsonObject:
    """Tells ext_authz the same of attempts at providers that may be full. It is the log of a listener inside Envoy."""
    # Shares need not be known to the millisecond, so some are told of together.
    return _told_to_ext_authz(
        "attempts_count",
        [(Metadata.ATTEMPT_NAMESPACE, AttemptCount.ATTEMPT_ID)],
        {"buffer_size_bytes": _BUFFER_BYTES, "buffer_flush_interval": "0.05s"},
    )


def leased_limits_log() -> JsonObject:
    """The same of requests that came by a lease. Nobody waits for their places, only what they used counts: many at once."""
    return _told_to_ext_authz(
        "leased_limits",
        [(Metadata.NAMESPACE, Metadata.LEASE, each) for each in _COUNTS],
        {"buffer_size_bytes": _BUFFER_BYTES, "buffer_flush_interval": _LEASED_FLUSH_INTERVAL},
    )


def _told_to_ext_authz(name: str, where: Sequence[tuple[str, ...]], buffer: JsonObject) -> JsonObject:
    """Of requests that have one of the places in metadata."""
    filters: list[Json] = [_has(*path) for path in where]
    return {
        "name": name,
        "filter": {"or_filter": {"filters": filters}} if len(filters) > 1 else filters[0],
        "typed_config": typed(
            "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            common_config={
                "log_name": name,
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ}},
                **buffer,
            },
        ),
    }


def _has(namespace: str, *path: str) -> JsonObject:
    return {
        "metadata_filter": {
            "matcher": {
                "filter": namespace,
                "path": [{"key": key} for key in path],
                "value": {"present_match": True},
            },
            "match_if_key_not_found": False,
        }
    }
