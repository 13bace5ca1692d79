"""Lines of batches: what the front filter would refuse is refused, and what is sent to the provider is told whole."""

import json
from typing import Any

import pytest

from billing_sink.batches.admission import RefusedLineError, Sold, admit, total
from billing_sink.batches.line_reader import BatchLine, InvalidBatchLineError, LineReader
from billing_sink.prices import PriceBook
from gateway_core.endpoints import FACTS, IN_BATCHES, Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.pricing import PriceRow, charge
from gateway_core.usage import BATCH, Meter, Usage
from tests.support.admission import KEY

P = ProviderName("p")
M = ModelName("m")
VERSION = PriceVersion(3)


def raw(body: object, endpoint: Endpoint = Endpoint.CHAT, **members: object) -> bytes:
    line = {"custom_id": "one", "method": "POST", "url": FACTS[endpoint].path, "body": body, **members}
    return json.dumps(line).encode()


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}


def read(body: object, endpoint: Endpoint = Endpoint.CHAT) -> BatchLine:
    return LineReader(endpoint).read(raw(body, endpoint))


def test_a_line_is_read_and_rewritten_for_its_provider_and_nothing_else_of_it_changes() -> None:
    body = chat(max_tokens=7, n=2, seed=1e3, x={"model": "inside"})
    line = read(body)
    assert (line.custom_id, line.model, line.max_output_tokens, line.choices) == ("one", "m", 7, 2)
    assert line.body_bytes == len(json.dumps(body))
    sent = line.rewritten("vendor/m-1")
    assert sent.endswith(b"}\n")
    assert sent.count(b"\n") == 1
    assert json.loads(sent) == {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body | {"model": "vendor/m-1"},
    }


def test_a_response_is_not_kept_at_its_provider() -> None:
    sent = json.loads(read({"model": "m", "input": "Hi"}, Endpoint.RESPONSES).rewritten("m"))
    assert sent["body"]["store"] is False


def test_references_and_what_is_asked_for_besides_are_seen() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    assert read(chat(messages=[{"role": "user", "content": picture}])).has_references
    assert read(chat(modalities=["text", "audio"])).meters == {Meter.AUDIO_OUTPUT}
    assert read({"model": "m", "input": ["a", "b"]}, Endpoint.EMBEDDINGS).units == 2


@pytest.mark.parametrize("endpoint", IN_BATCHES)
def test_every_endpoint_of_batches_can_be_read(endpoint: Endpoint) -> None:
    words: dict[Endpoint, dict[str, Any]] = {
        Endpoint.CHAT: chat(),
        Endpoint.COMPLETIONS: {"model": "m", "prompt": "Hi"},
    }
    assert read(words.get(endpoint, {"model": "m", "input": "Hi"}), endpoint).model == "m"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (raw(chat()) + b"x", "invalid_json"),
        (raw(chat()).replace(b'"method"', b'"custom_id"'), "invalid_json"),
        (raw(chat()).replace(b'"messages"', b'"model"'), "invalid_json"),
        (raw(chat()).replace(b"Hi", b"\\u0061"), "invalid_json"),
        (raw(chat(), url="/v1/embeddings"), "invalid_input"),
        (raw(chat(), method="GET"), "invalid_input"),
        (raw(chat(), custom_id=""), "invalid_input"),
        (raw(chat(), custom_id="a\x00"), "invalid_input"),
        (raw(chat(), custom_id=7), "invalid_input"),
        (raw(chat(), custom_id="a" * 129), "invalid_input"),
        (raw("text"), "invalid_json"),
        (raw({}), "missing_model"),
        (raw(chat(model="a b")), "invalid_model"),
        (raw(chat(models=["m"])), "invalid_model"),
        (raw(chat(stream=True)), "stream_not_offered"),
        (raw(chat(service_tier="priority")), "service_tier_not_offered"),
        (raw(chat(web_search_options={})), "feature_not_offered"),
        (
            raw(chat(messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}])),
            "stored_state_not_offered",
        ),
    ],
)
def test_what_is_no_request_or_is_not_offered_is_refused(line: bytes, code: str) -> None:
    with pytest.raises(InvalidBatchLineError) as refused:
        LineReader(Endpoint.CHAT).read(line)
    assert refused.value.error.code == code


@pytest.mark.parametrize("control", ["\r", "\x0b", "\x00"])
def test_nobody_who_splits_lines_otherwise_finds_two_in_one(control: str) -> None:
    line = raw(chat()).decode().replace(", ", f",{control}", 1).encode()
    with pytest.raises(InvalidBatchLineError):
        LineReader(Endpoint.CHAT).read(line)
    assert LineReader(Endpoint.CHAT).read(raw(chat()) + b"\r").model == M


@pytest.mark.parametrize(
    "more",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"conversation": "c"},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
    ],
)
def test_a_response_of_a_batch_has_nothing_to_do_with_what_is_kept(more: dict[str, object]) -> None:
    with pytest.raises(InvalidBatchLineError) as refused:
        read({"model": "m", "input": "Hi", **more}, Endpoint.RESPONSES)
    assert refused.value.error.code == "stored_state_not_offered"


def price(*, batch: int | None = 5) -> PriceRow:
    """Ten nano-USD a token, and as much less in a batch."""
    tiers = [("{}", 10), *([] if batch is None else [('{"service_tier": "batch"}', batch)])]
    rows = [(meter, condition, amount * 10**6) for condition, amount in tiers for meter in ("input", "output")]
    meters, conditions, amounts = ([row[n] for row in rows] for n in range(3))
    return PriceRow.of(VERSION, meters, conditions, amounts, amounts)  # type: ignore[arg-type]


def book(row: PriceRow) -> PriceBook:
    return PriceBook.of(VERSION, [((M, P), row)])


def sold(*endpoints: Endpoint, orgs: tuple[str, ...] = ()) -> dict[ModelName, tuple[Sold, ...]]:
    model = Sold(M, P, "m-1", 1000, 100, frozenset(map(OrgId, orgs)), frozenset(endpoints or (Endpoint.CHAT,)))
    return {M: (model,), ModelName("alias"): (model,)}


def test_what_is_held_covers_whatever_the_line_can_use_at_the_price_of_batches_and_no_more() -> None:
    line = read(chat(max_tokens=20, n=2))
    admitted = admit(line, Endpoint.CHAT, KEY, sold(), book(price()))
    assert admitted.amount == 5 * (line.body_bytes + 2 * 20)
    most = Usage({Meter.INPUT: line.body_bytes, Meter.OUTPUT: 40}, BATCH)
    assert charge(most, price(), book(price()).terms(KEY.org_id, M, P, VERSION)).price_nano_usd == admitted.amount
    assert total([admitted, admitted]) == 2 * admitted.amount
    # Without a bound of its own, as much as the model can write; and its context, where something is not in the line.
    assert admit(read(chat()), Endpoint.CHAT, KEY, sold(), book(price())).amount == 5 * (len(json.dumps(chat())) + 100)
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    referring = read(chat(messages=[{"role": "user", "content": picture}], max_tokens=1))
    assert admit(referring, Endpoint.CHAT, KEY, sold(), book(price())).amount == 5 * (1000 + 1)


def test_a_model_is_asked_for_by_any_of_its_names() -> None:
    admitted = admit(read(chat(model="alias")), Endpoint.CHAT, KEY, sold(), book(price()))
    assert (admitted.sold.model, str(admitted.offering)) == (M, "m p=m-1")


@pytest.mark.parametrize(
    ("body", "assortment", "row", "models", "code"),
    [
        (chat(model="other"), sold(), price(), (), "model_not_found"),
        (chat(), sold(orgs=("org_2",)), price(), (), "model_not_found"),
        (chat(), sold(Endpoint.RESPONSES), price(), (), "endpoint_not_supported"),
        (chat(), sold(), price(), ("gpt-*",), "model_not_allowed"),
        (chat(), sold(), price(batch=None), (), "service_tier_not_offered"),
        (chat(modalities=["audio"]), sold(), price(), (), "feature_not_offered"),
    ],
)
def test_what_the_key_may_not_have_or_nobody_has_priced_is_refused(
    body: dict[str, Any],
    assortment: dict[ModelName, tuple[Sold, ...]],
    row: PriceRow,
    models: tuple[str, ...],
    code: str,
) -> None:
    key = KEY.__class__(KEY.key_id, KEY.org_id, KEY.project_id, models, is_disabled=False, expires_at=None)
    with pytest.raises(RefusedLineError) as refused:
        admit(read(body), Endpoint.CHAT, key, assortment, book(row))
    assert refused.value.error.code == code
