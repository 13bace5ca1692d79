import pytest

from ext_authz.asked import Asked
from ext_authz.check_request import MalformedCheckError, parse_check
from gateway_core.contract import Header, Metadata
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, ProviderName
from gateway_core.mode import Mode
from gateway_core.offering import Offering
from gateway_core.usage import Meter
from tests.support.admission import CHAT, REQUEST_ID, check_request
from wire.ext_authz_pb2 import CheckRequest


def with_headers(**headers: str) -> CheckRequest:
    return check_request(
        headers={Header.REQUEST_ID: REQUEST_ID, **{name.replace("_", "-"): text for name, text in headers.items()}}
    )


def test_what_front_lua_says_about_a_chat_request_is_read() -> None:
    fields = {**CHAT, "max_output_tokens": 256, "choices": 2, "least_output_tokens": 1025, "query_bytes": 7}
    asked = parse_check(check_request(fields, {Header.REQUEST_ID: REQUEST_ID, "authorization": "Bearer sk-x"}))
    assert asked.request_id == REQUEST_ID
    assert asked.credential == "sk-x"
    assert asked.endpoint is Endpoint.CHAT
    assert asked.model == "gpt-4o-mini"
    assert (asked.body_bytes, asked.max_output_tokens, asked.choices) == (67, 256, 2)
    assert asked.least_output_tokens == 1025
    assert asked.query_bytes == 7


def test_a_form_says_how_much_of_it_is_files() -> None:
    fields = {**CHAT, "endpoint": "transcriptions", "files": 1, "file_bytes": 60}
    asked = parse_check(check_request(fields))
    assert (asked.files, asked.file_bytes, asked.text_bytes) == (1, 60, 7)
    del fields["file_bytes"]
    with pytest.raises(MalformedCheckError):
        parse_check(check_request(fields))


def test_what_the_client_left_out_is_one_choice_and_no_bound() -> None:
    asked = parse_check(check_request())
    assert (asked.max_output_tokens, asked.choices, asked.credential) == (None, 1, None)


def test_the_service_tier_and_searches_are_read_and_left_open_where_nothing_is_said() -> None:
    asked = parse_check(check_request({**CHAT, "service_tier": "fast", "web_search": True}))
    assert (asked.service_tier, asked.may_search) == ("priority", True)
    for fields in (CHAT, {**CHAT, "service_tier": "auto"}):
        assert (parse_check(check_request(fields)).service_tier, parse_check(check_request(fields)).may_search) == (
            None,
            False,
        )
    with pytest.raises(MalformedCheckError):
        parse_check(check_request({**CHAT, "service_tier": "two words"}))


@pytest.mark.parametrize("choices", [0, 1])
def test_there_is_always_at_least_one_choice(choices: int) -> None:
    assert parse_check(check_request({**CHAT, "choices": choices})).choices == 1


def test_a_bound_of_zero_is_a_bound() -> None:
    assert parse_check(check_request({**CHAT, "max_output_tokens": 0})).max_output_tokens == 0


def test_a_list_of_models_has_no_model_and_no_body() -> None:
    asked = parse_check(check_request({"endpoint": "models"}))
    assert (asked.endpoint, asked.model, asked.body_bytes) == (Endpoint.MODELS, None, 0)


@pytest.mark.parametrize(
    ("request_", "credential"),
    [
        (with_headers(authorization="Bearer sk-a"), "sk-a"),
        (with_headers(authorization="bearer sk-a"), "sk-a"),
        (with_headers(x_api_key="sk-b"), "sk-b"),
        (with_headers(authorization="Bearer sk-a", x_api_key="sk-b"), "sk-a"),
        (with_headers(authorization="Basic dTpw", x_api_key="sk-b"), "sk-b"),
        (with_headers(authorization="Basic dTpw"), None),
        (with_headers(), None),
    ],
)
def test_the_key_is_a_bearer_token_or_else_an_x_api_key(request_: CheckRequest, credential: str | None) -> None:
    assert parse_check(request_).credential == credential


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(CheckRequest(), id="nothing at all"),
        pytest.param(check_request(None), id="the front filter has not seen it"),
        pytest.param(check_request(headers={}), id="no request id"),
        pytest.param(check_request(headers={Header.REQUEST_ID: ""}), id="an empty request id"),
        pytest.param(check_request({}), id="no fields"),
        pytest.param(check_request({"error_code": "invalid_json"}), id="the front filter has refused it"),
        pytest.param(check_request({**CHAT, "endpoint": "telepathy"}), id="an unknown endpoint"),
        pytest.param(check_request({**CHAT, "endpoint": "images"}), id="pictures, and not how many"),
        pytest.param(check_request({**CHAT, "model": ""}), id="an empty model"),
        pytest.param(check_request({"endpoint": "chat", "body_bytes": 5}), id="no model where one is charged for"),
    ],
)
def test_a_question_that_front_lua_does_not_ask_is_malformed(request_: CheckRequest) -> None:
    with pytest.raises(MalformedCheckError):
        parse_check(request_)


def test_metadata_of_another_filter_is_not_taken_for_ours() -> None:
    request = check_request(None)
    request.attributes.metadata_context.filter_metadata["other"].update({Metadata.REQUEST: dict(CHAT)})
    with pytest.raises(MalformedCheckError):
        parse_check(request)


def test_the_credential_does_not_show_in_a_repr() -> None:
    asked: Asked = parse_check(with_headers(authorization="Bearer sk-tg-live-hunter2"))
    assert asked.credential == "sk-tg-live-hunter2"
    assert "hunter2" not in f"{asked!r} {asked}"


def test_the_address_is_what_envoy_says_of_the_client_where_there_may_be_a_proxy_in_between() -> None:
    request = with_headers(**{Header.CLIENT_ADDRESS: "203.0.113.7"})
    request.attributes.source.address.socket_address.address = "192.0.2.7"
    assert parse_check(request).address == "203.0.113.7"


def test_the_address_is_that_of_the_connection_whatever_the_headers_say() -> None:
    request = with_headers(x_forwarded_for="203.0.113.9")
    request.attributes.source.address.socket_address.address = "192.0.2.7"
    assert parse_check(request).address == "192.0.2.7"


def test_the_mode_is_that_of_the_route_and_live_where_a_front_filter_knows_no_other() -> None:
    assert parse_check(check_request({**CHAT, "mode": "test"})).mode is Mode.TEST
    assert parse_check(check_request({name: value for name, value in CHAT.items() if name != "mode"})).mode is Mode.LIVE
    with pytest.raises(MalformedCheckError):
        parse_check(check_request({**CHAT, "mode": "free"}))


def test_what_the_route_stands_for_is_read_and_none_where_it_leads_to_no_provider() -> None:
    assert parse_check(check_request({**CHAT, "offering": "m p=up/m"})).offering == Offering(
        ModelName("m"), {ProviderName("p"): "up/m"}
    )
    assert parse_check(check_request(CHAT)).offering is None
    with pytest.raises(MalformedCheckError):
        parse_check(check_request({**CHAT, "offering": "m"}))


def test_the_meters_that_are_asked_for_are_read_and_none_that_is_not_known() -> None:
    asked = parse_check(check_request({**CHAT, "meters": "web_search,audio_output"}))
    assert asked.meters == {Meter.WEB_SEARCH, Meter.AUDIO_OUTPUT}
    assert parse_check(check_request(CHAT)).meters == frozenset()
    with pytest.raises(MalformedCheckError):
        parse_check(check_request({**CHAT, "meters": "telepathy"}))
