"""Every route a client can take: counted by something, priced by something, or leading to no provider."""

import pytest

from gateway_core.endpoints import FACTS, IN_BATCHES, OF_WHAT_IS_KEPT, SOLD, SOLD_UNLESS_TOLD, CountedBy, Endpoint
from gateway_core.kept import KeptKind
from gateway_core.providers import PATHS_BY_KIND, ProviderKind, served
from gateway_core.usage import ASKED_METERS, OUTPUT_METERS, Meter

SOLD_ON = pytest.mark.parametrize("endpoint", SOLD)


@SOLD_ON
def test_every_endpoint_that_is_sold_has_a_meter_and_a_price_that_it_needs(endpoint: Endpoint) -> None:
    facts = FACTS[endpoint]
    assert facts.priced_by
    assert all(needed <= set(Meter) for needed in facts.priced_by)
    if facts.counted_by is CountedBy.USAGE:
        assert all(facts.priced_by), "what a provider counts is never free by itself"
    else:
        assert {meter for needed in facts.priced_by for meter in needed} <= {Meter.REQUEST}
        assert (facts.asked, facts.output, facts.output_bound) == (None, None, None)


@SOLD_ON
def test_what_is_asked_for_can_be_the_only_price_and_what_is_written_has_a_meter(endpoint: Endpoint) -> None:
    facts = FACTS[endpoint]
    if facts.asked is not None:
        assert facts.asked in ASKED_METERS
        assert frozenset({facts.asked}) in facts.priced_by
    if facts.output is not None:
        assert facts.output in OUTPUT_METERS
    assert facts.output_bound is None or facts.output is Meter.OUTPUT


def test_what_is_not_sold_leads_to_no_provider_or_to_the_one_that_keeps_something_and_needs_no_price() -> None:
    for endpoint in set(Endpoint) - set(SOLD):
        facts = FACTS[endpoint]
        assert (facts.counted_by, facts.priced_by) == (CountedBy.NOTHING, ())
        served_somewhere = any(endpoint in paths for paths in PATHS_BY_KIND.values())
        assert served_somewhere == facts.is_of_what_is_kept == (endpoint in OF_WHAT_IS_KEPT)
        assert facts.method == "GET" or facts.is_of_what_is_kept


@pytest.mark.parametrize("endpoint", Endpoint)
def test_what_names_something_kept_has_its_id_in_the_path_and_what_forgets_it_names_it(endpoint: Endpoint) -> None:
    facts = FACTS[endpoint]
    # The input of a batch is named in the body.
    assert (facts.names is not None) == ("{id}" in facts.path or endpoint is Endpoint.BATCH_CREATE)
    assert facts.names is not None or not facts.forgets
    assert facts.keeps is None or facts.names is None or endpoint is Endpoint.BATCH_CREATE
    assert facts.lists is None or (facts.is_answered_here and not facts.is_of_what_is_kept)


def test_lines_of_batches_are_json_and_counted_by_their_usage() -> None:
    for endpoint in IN_BATCHES:
        facts = FACTS[endpoint]
        assert facts.counted_by is CountedBy.USAGE
        assert facts.keeps is None
        assert not any((facts.is_form, facts.is_session, facts.asked, facts.is_usage_in_stream_only))
        assert endpoint in PATHS_BY_KIND[ProviderKind.OPENAI]


@pytest.mark.parametrize("kind", ProviderKind)
def test_who_keeps_something_can_be_asked_for_it_and_told_to_forget_it(kind: ProviderKind) -> None:
    paths = PATHS_BY_KIND[kind]
    for endpoint in paths:
        # A batch is over by itself.
        if (kept := FACTS[endpoint].keeps) is not None and kept is not KeptKind.BATCH:
            about = [FACTS[each] for each in paths if FACTS[each].names is kept]
            assert {(facts.method, facts.forgets) for facts in about} >= {("GET", False), ("DELETE", True)}


def test_every_endpoint_that_is_sold_is_served_by_some_kind_of_provider_and_none_besides() -> None:
    assert {endpoint for paths in PATHS_BY_KIND.values() for endpoint in paths} == {*SOLD, *OF_WHAT_IS_KEPT}
    assert set(SOLD_UNLESS_TOLD) <= set(SOLD)


def test_a_provider_serves_what_it_has_of_what_a_model_is_sold_on() -> None:
    assert served(ProviderKind.OPENAI, SOLD_UNLESS_TOLD, translated=False) == (Endpoint.CHAT,)
    assert served(ProviderKind.ANTHROPIC, SOLD_UNLESS_TOLD, translated=False) == (
        Endpoint.MESSAGES,
        Endpoint.COUNT_TOKENS,
    )
    assert served(ProviderKind.ANTHROPIC, (Endpoint.EMBEDDINGS,), translated=False) == ()


@pytest.mark.parametrize(
    ("endpoint", "meters", "is_enough"),
    [
        (Endpoint.CHAT, {Meter.INPUT}, True),
        (Endpoint.CHAT, {Meter.OUTPUT}, False),
        (Endpoint.RESPONSES, {Meter.INPUT}, False),
        (Endpoint.EMBEDDINGS, {Meter.INPUT}, True),
        (Endpoint.EMBEDDINGS, {Meter.REQUEST}, False),
        (Endpoint.MODERATIONS, {Meter.REQUEST}, True),
        (Endpoint.MODERATIONS, {Meter.INPUT, Meter.OUTPUT}, False),
        (Endpoint.COUNT_TOKENS, set(), True),
        (Endpoint.RERANK, {Meter.SEARCH_UNIT}, True),
        (Endpoint.RERANK, {Meter.INPUT}, True),
        (Endpoint.IMAGES, {Meter.IMAGE}, True),
        (Endpoint.IMAGES, {Meter.INPUT, Meter.OUTPUT}, False),
        (Endpoint.IMAGES, {Meter.INPUT, Meter.IMAGE_OUTPUT}, True),
        (Endpoint.IMAGE_EDITS, {Meter.INPUT, Meter.IMAGE_OUTPUT}, False),
        (Endpoint.IMAGE_EDITS, {Meter.INPUT, Meter.IMAGE_INPUT, Meter.IMAGE_OUTPUT}, True),
        (Endpoint.TRANSCRIPTIONS, {Meter.AUDIO_SECOND}, True),
        (Endpoint.TRANSCRIPTIONS, {Meter.INPUT, Meter.OUTPUT}, False),
        (Endpoint.TRANSLATIONS, {Meter.INPUT, Meter.AUDIO_INPUT, Meter.OUTPUT}, True),
        (Endpoint.SPEECH, {Meter.CHARACTER}, True),
        (Endpoint.SPEECH, {Meter.AUDIO_OUTPUT}, False),
    ],
)
def test_which_prices_are_enough(endpoint: Endpoint, meters: set[Meter], is_enough: bool) -> None:
    assert FACTS[endpoint].is_priced(meters) == is_enough
