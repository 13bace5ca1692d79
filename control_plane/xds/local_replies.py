"""What Envoy itself answers (no route, upstream down, time-out, too large), in the form of the errors of the endpoint that was asked."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from control_plane.xds.bursts import REFUSED as REFUSED_FOR_ITS_BURST
from control_plane.xds.protobuf import Json, JsonObject, typed
from gateway_core import errors
from gateway_core.contract import CACHE_HIT, Header, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import ANTHROPIC_PATHS, GOOGLE_CALLS, GOOGLE_PATHS, ApiError, ErrorForm

_OUR_OWN = ("lua_response", "ext_authz_denied", "direct_response", "health_check_ok", "health_check_failed", CACHE_HIT)
"""Details of replies whose body one of us has already written, or a provider before, or that have none; they pass as they are."""

_TRANSLATOR = "translator"

LIMITED_FLAG: Final = "RL"
"""Envoy's response flag of an attempt at a provider of which ext_authz says that it is full."""

_OWN_REPLY: JsonObject = {
    "header": {"key": Header.OWN_REPLY, "value": "%RESPONSE_FLAGS%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
"""Says why, for the log of attempts: to the route in front it is an answer."""

_REPLY_ID: JsonObject = {
    "header": {"key": Header.REQUEST_ID, "value": "%UNIQUE_ID%"},
    "append_action": "ADD_IF_ABSENT",
}
"""For what was no request at all, and so has no id: every answer carries one, and the log line has it too."""


_ENDPOINT: Final = f"metadata.filter_metadata['{Metadata.NAMESPACE}']['{Metadata.REQUEST}']['{RequestField.ENDPOINT}']"
_UNSEEN: Final = f"!('{Metadata.NAMESPACE}' in metadata.filter_metadata)"
_PATHS: Final = {ErrorForm.ANTHROPIC: ANTHROPIC_PATHS, ErrorForm.GOOGLE: GOOGLE_PATHS}
ASKED_IN: Final[Mapping[ErrorForm, str]] = {
    form: " || ".join(
        (
            *(f"{_ENDPOINT} == '{each}'" for each in Endpoint if FACTS[each].error_form is form),
            # What the front filter has not come to see still has the path that the client gave it; else it may be a provider's.
            f"{_UNSEEN} && request.path.startsWith('{paths}')",
            *([f"{_UNSEEN} && request.path.matches('{GOOGLE_CALLS}')"] if form is ErrorForm.GOOGLE else []),
        )
    )
    for form, paths in _PATHS.items()
}


def local_reply_config(
    *, asked_in: Mapping[ErrorForm, str] = ASKED_IN, is_within: bool = False, translates: bool = False
) -> JsonObject:
    """Mappers are tried in order; the first that matches words the answer.

    Args:
        asked_in: the expressions that tell whether a form of errors is to be had that is not OpenAI's.
        is_within: whether this is behind a listener inside Envoy: in front, its own replies are to be told from a provider's.
        translates: whether this is where one translates: its own words pass, too, and it lets those of Envoy pass.
    """
    headers: list[Json] = [_REPLY_ID, *([_OWN_REPLY] if is_within else [])]
    mappers = partial(_mappers, asked_in, headers)
    return {
        "mappers": [
            # A route's own answer has one body for all.
            *(
                _mapper(
                    _cel(f"response.code_details == 'direct_response' && response.code == {error.status} && ({asked})"),
                    error,
                    form,
                    headers,
                )
                for error in (errors.NOT_FOUND, errors.PROVIDER_PAUSED)
                for form, asked in asked_in.items()
            ),
            {
                "filter": _details(*_OUR_OWN, *((_TRANSLATOR,) if translates else ())),
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            },
            *(
                mappers(_cel("response.code_details.startsWith('ext_proc')"), errors.TRANSLATOR_UNAVAILABLE)
                if translates
                else ()
            ),
            *mappers(_details("ext_authz_error"), errors.AUTHORIZATION_UNAVAILABLE),
            *mappers(_details("failed_to_inject_credential"), errors.PROVIDER_CREDENTIAL_UNAVAILABLE, sets_status=True),
            # No policy lets pass what nobody has decided about.
            *mappers(
                _cel("response.code_details == 'rbac_access_denied_matched_policy[none]'"),
                errors.AUTHORIZATION_UNAVAILABLE,
                sets_status=True,
            ),
            *mappers(
                _cel("response.code_details.startsWith('rbac_access_denied')"),
                errors.PROVIDER_ADDRESS_REFUSED,
                sets_status=True,
            ),
            *mappers(_details(REFUSED_FOR_ITS_BURST), errors.BURST_EXCEEDED),
            *mappers({"response_flag_filter": {"flags": ["UO"]}}, errors.PROVIDER_FULL),
            *(
                mappers({"response_flag_filter": {"flags": [LIMITED_FLAG]}}, errors.PROVIDER_LIMITED)
                if is_within
                else ()
            ),
            *(
                mapper
                for error in (
                    errors.NOT_FOUND,
                    errors.REQUEST_TIMEOUT,
                    errors.REQUEST_TOO_LARGE,
                    errors.HEADERS_TOO_LARGE,
                    errors.PROVIDER_TIMEOUT,
                )
                for mapper in mappers(_status("EQ", error.status), error)
            ),
            *mappers(_status("GE", 500), errors.PROVIDER_UNAVAILABLE),
            *mappers(_status("GE", 0), errors.BAD_REQUEST),
        ],
    }


def _mappers(
    asked_in: Mapping[ErrorForm, str],
    headers: Sequence[Json],
    matching: JsonObject,
    error: ApiError,
    *,
    sets_status: bool = False,
) -> Iterator[JsonObject]:
    """An error in all forms, those that are not OpenAI's only where they were asked."""
    status: JsonObject = {"status_code": error.status} if sets_status else {}
    for form, asked in asked_in.items():
        yield {**_mapper({"and_filter": {"filters": [matching, _cel(asked)]}}, error, form, headers), **status}
    yield {**_mapper(matching, error, ErrorForm.OPENAI, headers), **status}


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


def _mapper(matching: JsonObject, error: ApiError, form: ErrorForm, headers: Sequence[Json]) -> dict[str, Json]:
    return {
        "filter": matching,
        "headers_to_add": [*headers, *_retry_after(error)],
        "body_format_override": {
            "json_format": error.document(form, "%REQ(X-REQUEST-ID)%"),
            "content_type": "application/json",
        },
    }


def _retry_after(error: ApiError) -> list[Json]:
    if error.retry_after_s is None:
        return []
    return [
        {
            "header": {"key": "retry-after", "value": str(error.retry_after_s)},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]
