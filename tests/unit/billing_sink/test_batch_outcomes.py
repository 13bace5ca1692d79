"""Answers of batches: rated at the batch tier by their usage, whatever they say; and what is no answer is for a person to look at."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from billing_sink.batches.admission import admit
from billing_sink.batches.line_reader import LineReader
from billing_sink.batches.model import Batch, RememberedLine
from billing_sink.batches.outcomes import STRAY_BYTES_MAX, end_of, parse_answer, rate_answers, remembered
from billing_sink.postings import Posting, Quarantined
from billing_sink.rating import Outcome, UsageSource
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ProviderName
from gateway_core.kept import ObjectId
from gateway_core.mode import Mode
from tests.support.admission import KEY
from tests.unit.billing_sink.test_batch_lines import VERSION, P, book, chat, price, raw, sold

PRICES = book(price())


def batch(mode: Mode = Mode.LIVE) -> Batch:
    return Batch(
        ObjectId("batch_1"),
        mode,
        KEY.org_id,
        KEY.project_id,
        KEY.key_id,
        P if mode is Mode.LIVE else None,
        Endpoint.CHAT,
        ObjectId("file-1"),
        {},
        datetime(2026, 1, 1, tzinfo=UTC),
    )


def line(of: Batch | None = None) -> RememberedLine:
    admitted = admit(LineReader(Endpoint.CHAT).read(raw(chat(max_tokens=20))), Endpoint.CHAT, KEY, sold(), PRICES)
    return remembered(7, admitted, of or batch(), VERSION)


def answer(status: int = 200, body: dict[str, Any] | None = None, **more: Any) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    said = {"model": "m-1", "usage": usage, "service_tier": "default"} if body is None else body
    return json.dumps(
        {"id": "r", "custom_id": "one", "response": {"status_code": status, "body": said}, **more}
    ).encode()


def rated(content: bytes, of: Batch | None = None) -> Posting | Quarantined:
    of = of or batch()
    postings, quarantined = rate_answers(of, [(1, content, parse_answer(content))], {"one": line(of)}, PRICES)
    found: list[Posting | Quarantined] = [*postings, *quarantined]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("mode", Mode)
def test_a_line_is_charged_at_the_price_of_batches_whatever_tier_its_answer_names(mode: Mode) -> None:
    found = rated(answer(), batch(mode))
    assert isinstance(found, Posting)
    assert found.request_id == "batch_1-7"
    assert (found.rated.outcome, found.rated.source) == (Outcome.SETTLED, UsageSource.PROVIDER)
    assert found.rated.charge.price_nano_usd == 5 * 14
    assert (found.rated.mode, found.rated.provider, found.rated.service_tier) == (mode, P, "batch")
    said = found.rated.line
    assert said.request is not None
    assert (said.request.client_request_id, said.model) == ("one", "m")


def test_an_answer_without_usage_is_estimated_and_never_beyond_what_was_held() -> None:
    found = rated(answer(body={"choices": [{"message": {"content": "x" * 10_000}}]}))
    assert isinstance(found, Posting)
    assert found.rated.outcome is Outcome.ESTIMATED
    assert 0 < found.rated.charge.price_nano_usd <= line().amount


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (answer(429, {"error": {}}), 429, None),
        (
            json.dumps({"custom_id": "one", "response": None, "error": {"code": "batch_expired"}}).encode(),
            0,
            "batch_expired",
        ),
    ],
)
def test_a_line_that_failed_costs_nothing(content: bytes, status: int, code: str | None) -> None:
    found = rated(content)
    assert isinstance(found, Posting)
    assert (found.rated.outcome, found.rated.charge.price_nano_usd) == (Outcome.RELEASED, 0)
    assert found.rated.line.status == status
    assert found.rated.line.request is not None
    assert found.rated.line.request.error_code == code


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": -1}, {"prompt_tokens": 10**8, "completion_tokens": 1}, {"prompt_tokens": 1, "odd": 7}, {}],
)
def test_a_usage_that_cannot_be_is_set_aside_with_the_id_that_its_money_is_held_under(usage: dict[str, int]) -> None:
    found = rated(answer(body={"usage": usage}))
    assert isinstance(found, Quarantined)
    assert found.request_id == "batch_1-7"
    assert found.line is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"7",
        answer(custom_id="other"),
        answer(custom_id=7),
        answer(response={"status_code": "x"}),
    ],
)
def test_what_is_no_answer_to_a_line_is_set_aside(content: bytes) -> None:
    found = rated(content)
    assert isinstance(found, Quarantined)
    assert found.request_id is None


def test_of_a_line_that_nobody_can_read_only_the_beginning_is_kept() -> None:
    found = rated(b"x" * 100_000)
    assert isinstance(found, Quarantined)
    assert found.raw.content == b"x" * STRAY_BYTES_MAX


def test_the_same_answer_has_the_same_hash_and_another_one_is_a_conflict() -> None:
    first, other = answer(), answer(500, {})
    assert isinstance(found := rated(first), Posting)
    assert isinstance(again := rated(first), Posting)
    assert found.input_hash == again.input_hash
    answers = [(place, each, parse_answer(each)) for place, each in enumerate((first, first, other))]
    postings, quarantined = rate_answers(batch(), answers, {"one": line()}, PRICES)
    assert len(postings) == len(quarantined) == 1
    assert quarantined[0].reason.startswith("conflict")


def test_the_end_of_a_batch_is_a_request_that_costs_nothing_whenever_it_is_said() -> None:
    ended = end_of(batch())
    assert (ended.request_id, ended.rated.outcome) == ("batch_1", Outcome.FREE)
    assert ended.input_hash == end_of(replace(batch(), said={"status": "completed"})).input_hash


def test_a_batch_is_over_for_its_owner_once_it_is_settled() -> None:
    said = {
        "status": "completed",
        "completed_at": 5,
        "output_file_id": "file-2",
        "input_file_id": "file-ours",
        "id": "theirs",
    }
    running = replace(batch(), said=said, provider=ProviderName("p"))
    shown = running.document()
    assert (shown["status"], shown["output_file_id"], shown["completed_at"]) == ("finalizing", None, None)
    assert (shown["id"], shown["input_file_id"]) == ("batch_1", "file-1")
    ended = replace(running, ended_at=datetime(2026, 1, 2, tzinfo=UTC)).document()
    assert (ended["status"], ended["output_file_id"], ended["completed_at"]) == ("completed", "file-2", 5)
    assert replace(batch(), ended_at=datetime(2026, 1, 2, tzinfo=UTC)).document()["status"] == "failed"
    assert "theirs" not in json.dumps(shown)


def test_a_batch_that_the_provider_has_cancelled_is_being_cancelled_until_it_is_settled() -> None:
    said = {"status": "cancelled", "cancelling_at": 4, "cancelled_at": 5}
    cancelled = replace(batch(), said=said, provider=ProviderName("p"))
    shown = cancelled.document()
    assert (shown["status"], shown["cancelling_at"], shown["cancelled_at"]) == ("cancelling", 4, None)
    assert replace(cancelled, ended_at=datetime(2026, 1, 2, tzinfo=UTC)).document()["status"] == "cancelled"
