"""A decision as Envoy's answer."""

from google.protobuf.struct_pb2 import Struct

from ext_authz.decision import Admitted, Refused
from gateway_core.api_keys import ApiKey
from gateway_core.contract import GrantField, Header
from wire.ext_authz_pb2 import CheckResponse, HeaderValueOption, RpcStatus

_OK = 0
_PERMISSION_DENIED = 7
_PAYMENT_REQUIRED = 402


def render_decision(decision: Admitted | Refused) -> CheckResponse:
    """The answer, with the grant as dynamic metadata, which the access log writes down."""
    response = CheckResponse()
    if decision.key is not None:
        _write_key(response.dynamic_metadata, decision.key)
    match decision:
        case Admitted():
            response.status.CopyFrom(RpcStatus(code=_OK))
            # Present but empty: Envoy takes an answer without it for a denial.
            response.ok_response.SetInParent()
            if decision.model is not None:
                response.dynamic_metadata[GrantField.MODEL] = decision.model
            if decision.price_version is not None:
                response.dynamic_metadata[GrantField.PRICE_VERSION] = decision.price_version
            if decision.hold_nano_usd is not None:
                response.dynamic_metadata[GrantField.HOLD_NANO_USD] = str(decision.hold_nano_usd)
            if decision.tokens_max is not None:
                response.dynamic_metadata[GrantField.TOKENS_MAX] = str(decision.tokens_max)
            if decision.max_tokens is not None:
                _cut_down(response, decision.max_tokens)
            if decision.slice_id is not None:
                response.dynamic_metadata[GrantField.SLICE_ID] = decision.slice_id
            if decision.rated_as is not None:
                response.dynamic_metadata[GrantField.RATED_AS] = decision.rated_as
        case Refused(error=error):
            response.status.CopyFrom(RpcStatus(code=_PERMISSION_DENIED))
            response.denied_response.status.code = error.status
            response.denied_response.body = error.body()
            _add_header(response, "content-type", "application/json")
            if error.status == _PAYMENT_REQUIRED:
                _add_header(response, Header.SHOULD_RETRY, "false")
            if error.retry_after_s is not None:
                _add_header(response, "retry-after", str(error.retry_after_s))
            response.dynamic_metadata[GrantField.ERROR_CODE] = error.code
    return response


def _write_key(metadata: Struct, key: ApiKey) -> None:
    metadata[GrantField.ORG_ID] = key.org_id
    metadata[GrantField.PROJECT_ID] = key.project_id
    metadata[GrantField.KEY_ID] = key.key_id
    metadata[GrantField.MODE] = key.mode


def _cut_down(response: CheckResponse, max_tokens: int) -> None:
    """Have the script in the provider's cluster write the number into the body, and the client told of it."""
    response.dynamic_metadata[GrantField.MAX_TOKENS] = str(max_tokens)
    # What the front filter has prepared is longer than that, so for no cluster it counts as prepared.
    response.ok_response.headers_to_remove.append(Header.PREPARED)
    option = response.ok_response.response_headers_to_add.add()
    option.header.key, option.header.value = Header.MAX_TOKENS, str(max_tokens)
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _add_header(response: CheckResponse, key: str, value: str) -> None:
    option = response.denied_response.headers.add()
    option.header.key = key
    option.header.value = value
