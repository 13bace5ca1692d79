"""Which fields of a request go into the spool: one JSON line when it ends, and one now and then while it runs.

Beside it, whom else it is told that one is over: ext_authz, where the request counts against a limit.
"""

from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core.contract import SPOOL_FILE, SPOOL_VERSION, Cluster, GrantField, Header, Metadata, SpoolField


def spool_log(spool_dir: str) -> JsonObject:
    """The access log that billing_sink reads. A field without a value is null, not absent."""
    line: dict[str, Json] = {
        SpoolField.VERSION: SPOOL_VERSION,
        SpoolField.TYPE: "%ACCESS_LOG_TYPE%",
        SpoolField.REQUEST_ID: f"%REQ({Header.REQUEST_ID})%",
        SpoolField.REPLY_ID: f"%RESP({Header.REQUEST_ID})%",
        SpoolField.START_TIME: "%START_TIME%",
        SpoolField.DURATION_MS: "%DURATION%",
        SpoolField.FIRST_BYTE_MS: "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:ms)%",
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
        SpoolField.SSE_EVENTS: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.SSE_EVENTS})%",
        SpoolField.SSE_BESIDE_BYTES: f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.SSE_BESIDE_BYTES})%",
    }
    return {
        "name": "spool",
        "filter": {"not_health_check_filter": {}},
        "typed_config": typed(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path=f"{spool_dir}/{SPOOL_FILE}",
            log_format={"json_format": line},
        ),
    }


def limits_log() -> JsonObject:
    """Tells ext_authz of requests that it has reserved a place for, and of no others: that they still run, and that they are over."""
    return {
        "name": "limits",
        "filter": {
            "metadata_filter": {
                "matcher": {
                    "filter": Metadata.GRANT_NAMESPACE,
                    "path": [{"key": GrantField.RESERVED_AT}],
                    "value": {"present_match": True},
                },
                "match_if_key_not_found": False,
            }
        },
        "typed_config": typed(
            "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            common_config={
                "log_name": "limits",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ}},
                # At once: the next request may wait for it.
                "buffer_size_bytes": 0,
            },
        ),
    }
