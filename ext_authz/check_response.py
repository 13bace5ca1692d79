"""A decision as Envoy's answer."""

from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct

from ext_authz.asked import Asked
from ext_authz.decision import Admitted, Refused, Session
from ext_authz.leases import Lease
from ext_authz.reservations import Reservation, Room, tightest
from gateway_core.api_keys import ApiKey
from gateway_core.contract import GrantField, Header, SessionField
from gateway_core.endpoints import FACTS
from gateway_core.error_headers import error_headers
from gateway_core.limits import tallies_as_text, tokens_per_minute_as_text
from wire.ext_authz_pb2 import CheckResponse, HeaderValueOption, RpcStatus

_OK = 0
_PERMISSION_DENIED = 7


def render_decision(decision: Admitted | Refused, asked: Asked) -> CheckResponse:
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
            if decision.input_tokens_max is not None:
                response.dynamic_metadata[GrantField.INPUT_TOKENS_MAX] = str(decision.input_tokens_max)
            if decision.max_tokens is not None:
                _cut_down(response, decision.max_tokens)
            if decision.session is not None:
                _write_session(response.dynamic_metadata, decision.session)
                if any(each.limits.tokens_per_minute is not None for each in decision.limits):
                    response.dynamic_metadata[GrantField.TOKENS_PER_MINUTE] = tokens_per_minute_as_text(decision.limits)
            if decision.slice_id is not None:
                response.dynamic_metadata[GrantField.SLICE_ID] = decision.slice_id
            if decision.keeper is not None:
                response.dynamic_metadata[GrantField.PROVIDER] = decision.keeper
            if decision.rated_as is not None:
                response.dynamic_metadata[GrantField.RATED_AS] = decision.rated_as
            if decision.expected_tokens is not None:
                response.dynamic_metadata[GrantField.EXPECTED_TOKENS] = str(decision.expected_tokens)
            if decision.own_keys:
                names = (f"{name}{'+' if falls_back else ''}" for name, falls_back in sorted(decision.own_keys.items()))
                response.dynamic_metadata[GrantField.OWN_KEYS] = " ".join(names)
            if decision.reservation is not None:
                _write_reservation(response.dynamic_metadata, decision.reservation)
                left = dict(_rate_limits(tightest(decision.reservation.rooms)))
                for name, value in left.items():
                    _tell(response, f"{Header.RATE_LIMIT_PREFIX}{name}", value)
                if decision.lease is not None:
                    response.dynamic_metadata[GrantField.RATE_LIMITS] = left
            if decision.lease is not None:
                _write_lease(response.dynamic_metadata, decision.lease)
        case Refused(error=error):
            response.status.CopyFrom(RpcStatus(code=_PERMISSION_DENIED))
            response.denied_response.status.code = error.status
            response.denied_response.body = error.body(FACTS[asked.endpoint].error_form, asked.request_id)
            _add_header(response, "content-type", "application/json")
            for name, value in error_headers(error).items():
                _add_header(response, name, value)
            if decision.reservation is not None:
                _write_reservation(response.dynamic_metadata, decision.reservation)
            if decision.room is not None:
                for name, value in _rate_limits(decision.room):
                    _add_header(response, f"{Header.RATE_LIMIT_PREFIX}{name}", value)
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
    _tell(response, Header.MAX_TOKENS, str(max_tokens))


def _write_reservation(metadata: Struct, reservation: Reservation) -> None:
    metadata[GrantField.RESERVED_FOR] = tallies_as_text(reservation.tallies)
    metadata[GrantField.RESERVED_TOKENS] = str(reservation.tokens)
    metadata[GrantField.RESERVED_AT] = str(reservation.at)


def _write_session(metadata: Struct, session: Session) -> None:
    metadata[GrantField.SESSION] = {SessionField.RESPONSE: session.response_nano_usd, **session.rates}


def _write_lease(metadata: Struct, lease: Lease) -> None:
    metadata[GrantField.LEASE_ID] = lease.lease_id
    metadata[GrantField.LEASE_USES] = lease.uses
    metadata[GrantField.LEASE_TTL_MS] = lease.ttl_ms
    metadata[GrantField.LEASE_BODY_BYTES] = lease.bounds.body_bytes
    if lease.bounds.max_output_tokens is not None:
        metadata[GrantField.LEASE_MAX_OUTPUT_TOKENS] = lease.bounds.max_output_tokens


def _rate_limits(room: Room) -> Iterator[tuple[str, str]]:
    """The headers that official SDKs and agents read, without what all begin with, for those limits that there are."""
    for what, limit, used in (
        ("requests", room.limits.requests_per_minute, room.requests),
        ("tokens", room.limits.tokens_per_minute, room.tokens),
    ):
        if limit is not None:
            yield f"limit-{what}", str(limit)
            yield f"remaining-{what}", str(max(0, limit - used))
            yield f"reset-{what}", f"{room.renews_in_s}s"


def _tell(response: CheckResponse, key: str, value: str) -> None:
    """A header of whatever the answer will be, in place of a provider's of that name."""
    option = response.ok_response.response_headers_to_add.add()
    option.header.key, option.header.value = key, value
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _add_header(response: CheckResponse, key: str, value: str) -> None:
    option = response.denied_response.headers.add()
    option.header.key = key
    option.header.value = value
