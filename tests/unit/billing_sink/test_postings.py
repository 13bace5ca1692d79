"""Each line of the spool becomes a posting, a quarantine row, or is a request still running."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_sink.postings import SpoolBatch, make_batch, parse_lines
from billing_sink.prices import PriceBook
from billing_sink.rating import Outcome
from billing_sink.spool import RawBatch, RawLine, SpoolId
from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.pricing import PriceRow, Rate
from gateway_core.usage import Meter
from tests.support.spool_lines import GRANT, failed_attempt, line, not_a_request, periodic, refused, render

SPOOL = SpoolId("spool")
PRICES = PriceBook.of(
    PriceVersion(18),
    [
        (
            (ModelName("gpt-4o-mini"), ProviderName("openai")),
            PriceRow(PriceVersion(10), {meter: Rate(1, 2) for meter in (Meter.INPUT, Meter.OUTPUT)}),
        )
    ],
)


def raw_batch(*contents: bytes, begin: int = 0) -> RawBatch:
    lines, offset = [], begin
    for content in contents:
        lines.append(RawLine(offset, content))
        offset += len(content) + 1
    return RawBatch(begin, offset, lines)


def posted(*contents: bytes, begin: int = 0) -> SpoolBatch:
    return make_batch(SPOOL, parse_lines(raw_batch(*contents, begin=begin)), PRICES)


def ids(batch: SpoolBatch) -> list[str]:
    return [posting.request_id for posting in batch.postings]


def reasons(batch: SpoolBatch) -> list[str]:
    return [item.reason for item in batch.quarantined]


def test_a_batch_keeps_the_spool_the_offsets_and_the_order_of_its_lines() -> None:
    first, second = render(line("a")), render(refused("b"))
    batch = posted(first, second, begin=100)
    assert (batch.spool_id, batch.begin, batch.end) == (SPOOL, 100, 100 + len(first) + len(second) + 2)
    assert ids(batch) == ["a", "b"]
    assert [posting.raw for posting in batch.postings] == [RawLine(100, first), RawLine(101 + len(first), second)]
    assert [posting.rated.outcome for posting in batch.postings] == [Outcome.SETTLED, Outcome.REFUSED]
    assert batch.quarantined == ()


def test_a_batch_without_lines_is_empty() -> None:
    batch = posted(begin=7)
    assert batch == SpoolBatch(SPOOL, 7, 7, (), ())


def test_a_line_of_a_request_still_running_is_neither_posted_nor_quarantined() -> None:
    batch = posted(render(periodic("a")), render(periodic("a")))
    assert (ids(batch), reasons(batch)) == ([], [])


def test_a_request_that_was_seen_running_is_posted_when_it_ends() -> None:
    assert ids(posted(render(periodic("a")), render(line("a")))) == ["a"]


def test_the_same_line_twice_is_one_posting() -> None:
    batch = posted(render(line("a")), render(line("a")))
    assert (ids(batch), reasons(batch)) == (["a"], [])


def test_the_same_id_with_another_line_is_a_conflict_and_the_first_stands() -> None:
    first, second = render(line("a")), render(line("a", bytes_sent=1))
    batch = posted(first, second)
    assert [posting.raw.content for posting in batch.postings] == [first]
    assert [(item.raw, item.request_id) for item in batch.quarantined] == [(RawLine(len(first) + 1, second), "a")]
    assert "conflict" in batch.quarantined[0].reason


def test_the_input_hash_tells_lines_apart_and_not_places() -> None:
    [here], [there], [other] = (
        posted(content, begin=begin).postings
        for content, begin in [(render(line("a")), 0), (render(line("a")), 50), (render(line("a", status=500)), 0)]
    )
    assert here.input_hash == there.input_hash != other.input_hash
    assert len(here.input_hash) == 32


def test_a_connection_without_an_id_is_posted_under_its_place_in_the_spool() -> None:
    first = render(not_a_request())
    batch = posted(first, first, begin=10)
    assert ids(batch) == ["spool:10", f"spool:{11 + len(first)}"]


def test_what_was_no_request_but_was_answered_has_the_id_of_the_answer() -> None:
    assert ids(posted(render(not_a_request(reply_id="from-the-answer", status=400)))) == ["from-the-answer"]


def test_the_requests_own_id_comes_before_that_of_the_answer() -> None:
    assert ids(posted(render(line("own", reply_id="another")))) == ["own"]


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff\xfe", b"{}", b'{"v":1}', b'{"v":2}'])
def test_what_is_not_a_line_is_quarantined_whole(content: bytes) -> None:
    batch = posted(content, begin=3)
    assert ids(batch) == []
    assert [(item.raw, item.request_id) for item in batch.quarantined] == [(RawLine(3, content), None)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"usage_first": "{"}, "InvalidUsageError"),
        ({"usage_first": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}}, "UnpricedError"),
        ({"grant": {**GRANT, "price_version": 1}}, "UnknownPriceError"),
    ],
)
def test_a_request_that_cannot_be_priced_is_quarantined_under_its_id(fields: dict[str, object], reason: str) -> None:
    batch = posted(render(line("a", **fields)), render(line("b")))
    assert ids(batch) == ["b"]
    [quarantined] = batch.quarantined
    assert (quarantined.request_id, quarantined.reason.split(":")[0]) == ("a", reason)


def test_a_torn_line_followed_by_a_whole_one_is_quarantined_and_the_whole_one_posted() -> None:
    torn, whole = render(line("a"))[:100], render(line("b"))
    batch = posted(torn + whole, begin=5)
    assert ids(batch) == ["b"]
    assert batch.postings[0].raw == RawLine(105, whole)
    [quarantined] = batch.quarantined
    assert quarantined.raw == RawLine(5, torn)
    assert quarantined.reason.startswith("torn: ")


def test_a_line_recovered_from_behind_a_torn_one_is_the_same_posting_as_on_its_own() -> None:
    torn, whole = render(line("a"))[:100], render(line("b"))
    [recovered], [plain] = posted(torn + whole).postings, posted(whole).postings
    assert recovered.input_hash == plain.input_hash


def test_a_periodic_line_behind_a_torn_one_is_ignored_and_the_torn_one_quarantined() -> None:
    batch = posted(render(line("a"))[:50] + render(periodic("b")))
    assert ids(batch) == []
    assert len(reasons(batch)) == 1


@given(st.integers(0, len(render(line("a")))))
def test_wherever_a_line_is_torn_the_whole_one_behind_it_is_posted(cut: int) -> None:
    torn, whole = render(line("a"))[:cut], render(line("b"))
    batch = posted(torn + whole)
    # Cut behind its last byte it is no longer torn, only run into the next: a person has to look.
    assert ids(batch) == ["b"]
    assert [item.raw.content for item in batch.quarantined] == ([torn] if torn else [])


@given(st.integers(1, len(render(line("a"))) - 1))
def test_wherever_a_line_is_torn_with_nothing_behind_it_it_is_quarantined(cut: int) -> None:
    batch = posted(render(line("a"))[:cut])
    assert (ids(batch), len(reasons(batch))) == ([], 1)


@given(st.lists(st.sampled_from([line("a"), line("b"), refused("c"), periodic("d"), not_a_request()])), st.data())
def test_every_line_has_exactly_one_fate(lines: list[dict[str, object]], data: st.DataObject) -> None:
    contents = [data.draw(st.sampled_from([render(each), render(each)[:80]])) for each in lines]
    batch = posted(*contents)
    posted_contents = {posting.raw.content for posting in batch.postings}
    quarantined = [item.raw for item in batch.quarantined]
    for raw in raw_batch(*contents).lines:
        whole = len(raw.content) > 80
        running = whole and b"DownstreamPeriodic" in raw.content
        assert (raw.content in posted_contents, raw in quarantined) == (whole and not running, not whole)


def test_a_failed_attempt_is_neither_posted_nor_quarantined_and_its_request_is_posted_once() -> None:
    first, second = failed_attempt("a"), failed_attempt("a", start_time="2026-11-27T16:00:48.038124Z", status=0)
    batch = posted(*map(render, (first, second, first, line("a", attempts=3))))
    assert (ids(batch), reasons(batch)) == (["a"], [])
    assert [attempt.line.status for attempt in batch.attempts] == [500, 0]


def test_another_attempt_of_the_same_moment_is_a_conflict_for_which_no_hold_waits() -> None:
    batch = posted(render(failed_attempt("a")), render(failed_attempt("a", status=429)))
    assert [attempt.line.status for attempt in batch.attempts] == [500]
    assert [(item.reason.split(":")[0], item.request_id) for item in batch.quarantined] == [("conflict", None)]


@pytest.mark.parametrize("whole", [failed_attempt("b"), line("b")], ids=["attempt", "request"])
@pytest.mark.parametrize("torn", [failed_attempt("a"), line("a")], ids=["attempt", "request"])
@given(data=st.data())
def test_what_follows_a_torn_line_is_read_whichever_of_them_is_about_an_attempt(
    torn: dict[str, object], whole: dict[str, object], data: st.DataObject
) -> None:
    content = render(torn)
    cut = content[: data.draw(st.integers(1, len(content)))]
    batch = posted(cut + render(whole))
    assert [*ids(batch), *(attempt.line.request_id for attempt in batch.attempts)] == ["b"]
    assert [item.raw.content for item in batch.quarantined] == [cut]


def test_a_client_cannot_make_its_request_look_like_an_attempt() -> None:
    batch = posted(render(line("a", user_agent='"type":"UpstreamEnd"')))
    assert (ids(batch), batch.attempts) == (["a"], ())


@pytest.mark.parametrize(
    "fields",
    [{"request_id": None}, {"request_id": ""}, {"status": 1000}, {"start_time": None}, {"offering": "x"}, {"v": 2}],
)
def test_a_line_about_an_attempt_that_is_none_is_quarantined(fields: dict[str, object]) -> None:
    batch = posted(render({**failed_attempt("a"), **fields}))
    assert (batch.attempts, len(reasons(batch))) == ((), 1)


@pytest.mark.parametrize(
    ("cluster", "is_told"),
    [
        ("provider/openai~chat", True),
        ("simulator", True),
        (None, True),
        ("control_plane", False),
        ("billing_sink", False),
    ],
)
def test_that_a_service_of_ours_has_refused_is_no_attempt_at_a_provider(cluster: str | None, *, is_told: bool) -> None:
    batch = posted(render(failed_attempt("a", cluster=cluster)))
    assert (len(batch.attempts), reasons(batch)) == (is_told, [])


def test_the_newest_price_version_is_that_of_any_line() -> None:
    lines = [line("a", grant={**GRANT, "price_version": version}) for version in (3, 18, 7)]
    parsed = parse_lines(raw_batch(*map(render, lines), render(refused("b")), b"rubbish", render(not_a_request())))
    assert parsed.newest_price_version == 18
    assert parse_lines(raw_batch(render(not_a_request()))).newest_price_version == 0


def test_an_answer_that_has_used_limits_up_is_no_failed_attempt_and_the_latest_word_of_each_model_is_kept() -> None:
    spent = ";;0;1m0s;5;1s"
    first = failed_attempt("a", status=200, limits=spent)
    second = failed_attempt("b", status=429, limits=";7;;;;", start_time="2026-11-27T16:00:49.000000Z")
    full = failed_attempt("c", status=503, own_reply="UO")
    batch = posted(*map(render, (second, first, full)))
    assert [(attempt.line.status, attempt.line.flags) for attempt in batch.attempts] == [(429, "-"), (503, "UO")]
    [told] = batch.limits
    assert (told.provider, told.upstream_model, told.status) == ("openai", "gpt-4o-mini-2024", 429)
    assert told.limits.retry_at is not None
