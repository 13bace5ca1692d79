"""What Envoy itself answers (no route, upstream down, time-out, too large), in the shape of OpenAI's errors."""

from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core.contract import Header

_OUR_OWN = ("lua_response", "ext_authz_denied", "direct_response")
"""Details of replies whose body one of us has already written; they pass as they are."""


def local_reply_config() -> JsonObject:
    """Mappers are tried in order; the first that matches words the answer."""
    return {
        "mappers": [
            {
                "filter": _details(*_OUR_OWN),
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            },
            _mapper(
                _details("ext_authz_error"),
                "authorization_unavailable",
                "The gateway cannot check this request right now. Try again shortly.",
                "server_error",
            ),
            {
                **_mapper(
                    _details("failed_to_inject_credential"),
                    "provider_credential_unavailable",
                    "The gateway has no credential for this provider.",
                    "server_error",
                ),
                "status_code": 503,
            },
            _mapper(_status("EQ", 404), "not_found", "Unknown path or method.", "invalid_request_error"),
            _mapper(_status("EQ", 408), "request_timeout", "The request did not arrive in time.", "timeout_error"),
            _mapper(_status("EQ", 413), "request_too_large", "The request body is too large.", "invalid_request_error"),
            _mapper(_status("EQ", 431), "headers_too_large", "The headers are too large.", "invalid_request_error"),
            _mapper(
                _status("EQ", 504), "provider_timeout", "The model provider did not answer in time.", "timeout_error"
            ),
            _mapper(
                _status("GE", 500), "provider_unavailable", "The model provider cannot be reached.", "server_error"
            ),
            _mapper(_status("GE", 0), "bad_request", "The request is not valid HTTP.", "invalid_request_error"),
        ],
    }


def _details(*details: str) -> JsonObject:
    expression = " || ".join(f"response.code_details == '{detail}'" for detail in details)
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": typed(
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression
            ),
        }
    }


def _status(comparison: str, status: int) -> JsonObject:
    value: Json = {"default_value": status, "runtime_key": f"tollgate.local_reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


_REPLY_ID: JsonObject = {
    "header": {"key": Header.REQUEST_ID, "value": "%UNIQUE_ID%"},
    "append_action": "ADD_IF_ABSENT",
}
"""For what was no request at all, and so has no id: every answer carries one, and the log line has it too."""


def _mapper(matching: JsonObject, code: str, message: str, kind: str) -> dict[str, Json]:
    return {
        "filter": matching,
        "headers_to_add": [_REPLY_ID],
        "body_format_override": {"json_format": _error(code, message, kind), "content_type": "application/json"},
    }


def _error(code: str, message: str, kind: str) -> JsonObject:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
