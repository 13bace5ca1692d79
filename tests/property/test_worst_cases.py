"""On every endpoint, what is held for a request is enough for whatever it may be charged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from billing_sink.access_log import parse_line
from billing_sink.prices import PriceBook
from billing_sink.rating import Outcome, rate
from ext_authz.asked import Asked
from ext_authz.check_request import parse_check
from ext_authz.decision import Admitted, decide
from ext_authz.offers import Offer, Offers, PricedDeployment
from gateway_core.endpoints import FACTS, SOLD, CountedBy, Dialect, Endpoint
from gateway_core.extent import (
    BYTES_PER_DOCUMENT,
    DOCUMENTS_PER_SEARCH_UNIT,
    SOUND_BITS_PER_SECOND,
    TOKENS_PER_PICTURE,
)
from gateway_core.pricing import PriceRow, Rate
from gateway_core.usage import ASKED_METERS, TOKEN_METERS, Meter
from tests.support.admission import KEY, MODEL, PROVIDER, VERSION, check_request
from tests.support.spool_lines import GRANT, line, render

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT, OUTPUT = 5000, 400
RATES = st.builds(lambda price: Rate(price // 2, price), st.integers(0, 10**9))


@dataclass(frozen=True)
class Case:
    """An endpoint, what a deployment costs there, and what the front filter says of a request."""

    endpoint: Endpoint
    row: PriceRow
    fields: Mapping[str, str | int | bool]

    @property
    def asked(self) -> Asked:
        return parse_check(check_request(self.fields))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    endpoint = draw(st.sampled_from(SOLD))
    needed = draw(st.sampled_from(FACTS[endpoint].priced_by))
    others = draw(
        st.sets(st.sampled_from([*TOKEN_METERS, *ASKED_METERS, Meter.REQUEST, Meter.SEARCH_UNIT, Meter.AUDIO_SECOND]))
    )
    row = PriceRow(VERSION, {meter: draw(RATES) for meter in sorted({*needed, *others})})
    fields: dict[str, str | int | bool] = {
        "endpoint": str(endpoint),
        "model": MODEL,
        "mode": "live",
        "body_bytes": draw(st.integers(20, 20_000)),
        "units": draw(st.integers(1, 300)),
        "stream": draw(st.booleans()),
        "references": draw(st.booleans()),
    }
    if endpoint is Endpoint.RERANK:
        fields["query_bytes"] = draw(st.integers(0, int(fields["body_bytes"])))
    if FACTS[endpoint].output_bound is not None or FACTS[endpoint].dialect is Dialect.GEMINI:
        fields["choices"] = draw(st.integers(1, 4))
        fields["max_output_tokens"] = draw(st.integers(1, 2 * OUTPUT))
    if FACTS[endpoint].is_session:
        fields["choices"] = draw(st.integers(1, 6))
    if FACTS[endpoint].is_form:
        fields["files"] = draw(st.integers(1, 16))
        fields["file_bytes"] = draw(st.integers(0, int(fields["body_bytes"]) - 20))
    return Case(endpoint, row, fields)


def input_max(case: Case) -> int:
    """As many tokens as a model could make of the request."""
    asked = case.asked
    if FACTS[case.endpoint].dialect is Dialect.TRANSCRIPTION:
        return CONTEXT
    if FACTS[case.endpoint].is_session:
        return CONTEXT * asked.choices
    if FACTS[case.endpoint].is_form:
        return min(asked.text_bytes + asked.files * TOKENS_PER_PICTURE, CONTEXT)
    if not FACTS[case.endpoint].has_many_inputs:
        return CONTEXT if asked.has_references else min(asked.body_bytes, CONTEXT)
    # With each document, the query is read anew.
    query = min(asked.query_bytes, CONTEXT) if case.endpoint is Endpoint.RERANK else 0
    return asked.body_bytes + (query + (CONTEXT if asked.has_references else 0)) * asked.units


def usage(case: Case, data: st.DataObject) -> str | None:
    """What a provider may count for it at most, in its own words; None where it counts nothing."""
    asked, facts = case.asked, FACTS[case.endpoint]
    read = data.draw(st.integers(1, input_max(case)))
    answers = asked.units if facts.dialect is Dialect.IMAGES else asked.choices
    written = data.draw(
        st.integers(0, OUTPUT if asked.max_output_tokens is None else min(OUTPUT, asked.max_output_tokens))
    )
    cached = data.draw(st.integers(0, read))
    match facts.dialect:
        case Dialect.OPENAI:
            counted: dict[str, object] = {
                "prompt_tokens": read,
                "completion_tokens": written * answers if facts.output else 0,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
        case Dialect.ANTHROPIC:
            counted = {"input_tokens": read - cached, "cache_read_input_tokens": cached, "output_tokens": written}
        case Dialect.GEMINI:
            counted = {
                "promptTokenCount": read,
                "cachedContentTokenCount": cached,
                "candidatesTokenCount": written * answers,
                "totalTokenCount": read + written * answers,
            }
        case Dialect.TRANSCRIPTION:
            heard = data.draw(st.integers(0, read))
            details = {"text_tokens": read - heard, "audio_tokens": heard}
            seconds = data.draw(st.floats(0.01, max(0.01, asked.body_bytes * 8 / SOUND_BITS_PER_SECOND)))
            counted = data.draw(
                st.sampled_from(
                    [
                        {"type": "duration", "seconds": seconds},
                        {"duration": seconds},
                        {"input_tokens": read, "output_tokens": written, "input_token_details": details},
                    ]
                )
            )
        case Dialect.REALTIME:
            cached_audio = data.draw(st.integers(0, cached))
            heard = data.draw(st.integers(cached_audio, cached_audio + read - cached))
            counted = {
                "responses": asked.choices,
                "usage": {
                    "input_tokens": read,
                    "output_tokens": written * answers,
                    "input_token_details": {
                        "audio_tokens": heard,
                        "cached_tokens": cached,
                        "cached_tokens_details": {"audio_tokens": cached_audio},
                    },
                    "output_token_details": {"audio_tokens": data.draw(st.integers(0, written * answers))},
                },
            }
        case Dialect.RERANK:
            documents = asked.units + asked.body_bytes // BYTES_PER_DOCUMENT
            units = data.draw(st.integers(0, -(-documents // DOCUMENTS_PER_SEARCH_UNIT)))
            counted = {"search_units": units, "total_tokens": read}
        case _:
            counted = {
                "input_tokens": read,
                "output_tokens": written * answers,
                "input_tokens_details": {"cached_tokens": cached},
            }
    return None if facts.counted_by is CountedBy.REQUEST else json.dumps(counted)


def offers(row: PriceRow, endpoint: Endpoint) -> Offers:
    deployment = PricedDeployment(PROVIDER, "up", row)
    return Offers(VERSION, {MODEL: Offer(MODEL, CONTEXT, OUTPUT, frozenset(), {endpoint: (deployment,)})}, {})


# So many, since each endpoint has its own worst case.
@settings(max_examples=600)
@given(case=cases(), data=st.data(), is_told=st.booleans())
def test_a_hold_covers_whatever_the_request_is_charged(case: Case, data: st.DataObject, is_told: bool) -> None:
    decision = decide(case.asked, KEY, offers(case.row, case.endpoint), now=NOW)
    assume(isinstance(decision, Admitted))
    assert isinstance(decision, Admitted)
    told = usage(case, data) if is_told else None
    missing = {Meter.SEARCH_UNIT, Meter.AUDIO_SECOND, *TOKEN_METERS} - case.row.rates.keys()
    # What has no price is set aside, which is another story.
    priced = PriceRow(VERSION, {**case.row.rates, **dict.fromkeys(missing, Rate(0, 0))})
    written = line(
        request=dict(case.fields),
        status=101 if FACTS[case.endpoint].is_session else 200,
        grant={**GRANT, "price_version": VERSION, "hold_nano_usd": str(decision.hold_nano_usd)},
        cluster=f"provider/{PROVIDER}",
        usage_first=told,
        usage_last=told if case.asked.is_stream and not FACTS[case.endpoint].is_session else None,
        bytes_sent=data.draw(st.integers(1, 10**6)),
        sse_events=5 if case.asked.is_stream and not (told and FACTS[case.endpoint].is_session) else None,
    )
    book = PriceBook.of(VERSION, [((MODEL, PROVIDER), priced)])
    rated = rate(parse_line(render(written)), book)
    assert decision.hold_nano_usd is not None
    assert 0 <= rated.charge.price_nano_usd <= decision.hold_nano_usd
    if (
        told is not None
        or FACTS[case.endpoint].counted_by is CountedBy.REQUEST
        or case.row.counts(FACTS[case.endpoint].asked)
    ):
        assert rated.outcome is Outcome.SETTLED
