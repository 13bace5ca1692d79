import json
from dataclasses import replace

import pytest
from google.protobuf.json_format import MessageToDict

from ext_authz.check_request import parse_check
from ext_authz.check_response import render_decision
from ext_authz.decision import Admitted, Refused, Session
from gateway_core.contract import GrantField, Header
from gateway_core.errors import INSUFFICIENT_QUOTA, INVALID_API_KEY, ApiError, model_not_found
from gateway_core.ids import ProviderName
from gateway_core.limits import Limits, Scope, ScopedLimits, Tally
from gateway_core.mode import Mode
from gateway_core.money import MAX_NANO_USD, NanoUsd
from tests.support.admission import CHAT, KEY, MODEL, REQUEST_ID, VERSION, check_request
from wire.ext_authz_pb2 import CheckResponse, HeaderValueOption

ASKED = parse_check(check_request())
WHOSE = {
    GrantField.ORG_ID: "org_1",
    GrantField.PROJECT_ID: "prj_1",
    GrantField.KEY_ID: "key_1",
    GrantField.MODE: "live",
}


def headers(response: CheckResponse) -> dict[str, str]:
    return {option.header.key: option.header.value for option in response.denied_response.headers}


def test_an_admission_carries_the_grant() -> None:
    response = render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(9_840_450), tokens_max=10_000_000), ASKED)
    assert response.status.code == 0
    assert MessageToDict(response.dynamic_metadata) == WHOSE | {
        GrantField.MODEL: MODEL,
        GrantField.PRICE_VERSION: 18,
        GrantField.HOLD_NANO_USD: "9840450",
        GrantField.TOKENS_MAX: "10000000",
    }


def test_an_answer_that_is_cut_down_is_prepared_anew_and_the_client_told() -> None:
    response = render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(1), max_tokens=300), ASKED)
    assert response.dynamic_metadata[GrantField.MAX_TOKENS] == "300"
    assert list(response.ok_response.headers_to_remove) == [Header.PREPARED]
    [option] = response.ok_response.response_headers_to_add
    assert (option.header.key, option.header.value) == ("x-tollgate-max-tokens", "300")
    # The provider may have a header of that name: it does not count.
    assert option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    as_it_is = render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(1)), ASKED)
    assert GrantField.MAX_TOKENS not in as_it_is.dynamic_metadata
    assert not as_it_is.ok_response.headers_to_remove
    assert not as_it_is.ok_response.response_headers_to_add


def test_a_session_is_told_the_limits_of_tokens_that_it_counts_against_while_it_lasts() -> None:
    limits = (
        ScopedLimits(Tally(Scope.KEY, "key_1"), Limits(requests_per_minute=5)),
        ScopedLimits(Tally(Scope.ORGANIZATION, "org_1"), Limits(tokens_per_minute=6000)),
    )
    session = Session(NanoUsd(5), {})
    response = render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(1), limits=limits, session=session), ASKED)
    assert response.dynamic_metadata[GrantField.TOKENS_PER_MINUTE] == "- 6000"
    for admitted in (
        Admitted(KEY, MODEL, VERSION, NanoUsd(1), limits=limits),
        Admitted(KEY, MODEL, VERSION, NanoUsd(1), limits=limits[:1], session=session),
    ):
        assert GrantField.TOKENS_PER_MINUTE not in render_decision(admitted, ASKED).dynamic_metadata


def test_an_admission_of_a_test_key_says_so_and_by_whose_prices_it_is_rated() -> None:
    key = replace(KEY, mode=Mode.TEST)
    response = render_decision(Admitted(key, MODEL, VERSION, NanoUsd(1), ProviderName("first")), ASKED)
    assert response.dynamic_metadata[GrantField.MODE] == "test"
    assert response.dynamic_metadata[GrantField.RATED_AS] == "first"


def test_an_admission_is_explicit_since_envoy_takes_silence_for_a_denial() -> None:
    assert render_decision(Admitted(KEY), ASKED).WhichOneof("http_response") == "ok_response"


def test_an_admission_without_a_price_has_no_price_version_and_no_hold() -> None:
    assert MessageToDict(render_decision(Admitted(KEY), ASKED).dynamic_metadata) == WHOSE


def test_a_hold_of_nothing_is_still_a_hold() -> None:
    assert (
        render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(0)), ASKED).dynamic_metadata[GrantField.HOLD_NANO_USD]
        == "0"
    )


def test_a_large_hold_keeps_every_digit() -> None:
    response = render_decision(Admitted(KEY, MODEL, VERSION, NanoUsd(MAX_NANO_USD)), ASKED)
    assert response.dynamic_metadata[GrantField.HOLD_NANO_USD] == "9223372036854775807"


@pytest.mark.parametrize("error", [INVALID_API_KEY, model_not_found("m"), ApiError(403, "model_not_allowed", "no")])
def test_a_refusal_is_the_error_as_json(error: ApiError) -> None:
    response = render_decision(Refused(error, KEY), ASKED)
    assert response.status.code != 0
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.denied_response.status.code == error.status
    assert json.loads(response.denied_response.body)["error"]["code"] == error.code
    assert headers(response) == {"content-type": "application/json"}


def test_a_refusal_is_in_the_grant_beside_whose_it_was() -> None:
    response = render_decision(Refused(model_not_found("m"), KEY), ASKED)
    assert MessageToDict(response.dynamic_metadata) == WHOSE | {GrantField.ERROR_CODE: "model_not_found"}


def test_a_refusal_of_nobody_we_know_has_the_code_alone() -> None:
    response = render_decision(Refused(INVALID_API_KEY), ASKED)
    assert MessageToDict(response.dynamic_metadata) == {GrantField.ERROR_CODE: "invalid_api_key"}


def test_an_empty_balance_tells_the_official_clients_not_to_try_again() -> None:
    response = render_decision(Refused(INSUFFICIENT_QUOTA, KEY), ASKED)
    assert response.denied_response.status.code == 402
    assert headers(response) == {"content-type": "application/json", Header.SHOULD_RETRY: "false"}


@pytest.mark.parametrize("endpoint", ["messages", "count_tokens"])
def test_a_refusal_on_an_endpoint_of_anthropics_is_in_its_form(endpoint: str) -> None:
    asked = parse_check(check_request({**CHAT, "endpoint": endpoint}))
    response = render_decision(Refused(INSUFFICIENT_QUOTA, KEY), asked)
    assert json.loads(response.denied_response.body) == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": INSUFFICIENT_QUOTA.message,
            "code": "insufficient_quota",
        },
        "request_id": REQUEST_ID,
    }
