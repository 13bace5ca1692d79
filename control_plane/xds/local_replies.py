"""What Envoy itself answers (no route, upstream down, time-out, too large), in the shape of OpenAI's errors."""

from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core import errors
from gateway_core.contract import Header
from gateway_core.errors import ApiError

_OUR_OWN = ("lua_response", "ext_authz_denied", "direct_response", "health_check_ok", "health_check_failed")
"""Details of replies whose body one of us has already written, or that have none; they pass as they are."""

_TRANSLATOR = "translator"

_REPLY_ID: JsonObject = {
    "header": {"key": Header.REQUEST_ID, "value": "%UNIQUE_ID%"},
    "append_action": "ADD_IF_ABSENT",
}
"""For what was no request at all, and so has no id: every answer carries one, and the log line has it too."""


def local_reply_config(*, translates: bool = False) -> JsonObject:
    """Mappers are tried in order; the first that matches words the answer. Where one translates, its own words pass, too."""
    return {
        "mappers": [
            {
                "filter": _details(*_OUR_OWN, *((_TRANSLATOR,) if translates else ())),
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            },
            *(
                [_mapper(_cel("response.code_details.startsWith('ext_proc')"), errors.TRANSLATOR_UNAVAILABLE)]
                if translates
                else []
            ),
            _mapper(_details("ext_authz_error"), errors.AUTHORIZATION_UNAVAILABLE),
            {
                **_mapper(_details("failed_to_inject_credential"), errors.PROVIDER_CREDENTIAL_UNAVAILABLE),
                "status_code": errors.PROVIDER_CREDENTIAL_UNAVAILABLE.status,
            },
            {
                **_mapper(
                    _cel("response.code_details.startsWith('rbac_access_denied')"), errors.PROVIDER_ADDRESS_REFUSED
                ),
                "status_code": errors.PROVIDER_ADDRESS_REFUSED.status,
            },
            *(
                _mapper(_status("EQ", error.status), error)
                for error in (
                    errors.NOT_FOUND,
                    errors.REQUEST_TIMEOUT,
                    errors.REQUEST_TOO_LARGE,
                    errors.HEADERS_TOO_LARGE,
                    errors.PROVIDER_TIMEOUT,
                )
            ),
            _mapper(_status("GE", 500), errors.PROVIDER_UNAVAILABLE),
            _mapper(_status("GE", 0), errors.BAD_REQUEST),
        ],
    }


def _details(*details: str) -> JsonObject:
    return _cel(" || ".join(f"response.code_details == '{detail}'" for detail in details))


def _cel(expression: str) -> JsonObject:
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


def _mapper(matching: JsonObject, error: ApiError) -> dict[str, Json]:
    return {
        "filter": matching,
        "headers_to_add": [_REPLY_ID],
        "body_format_override": {"json_format": error.document(), "content_type": "application/json"},
    }
