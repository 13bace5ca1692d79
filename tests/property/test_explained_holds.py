"""What an operator is told would be held is what admission holds. The two are in processes that share no code for it."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.explanation import (
    MatchedRoute,
    Member,
    OwnKeyThere,
    RouteQuestion,
    Surroundings,
    explain,
)
from control_plane.catalog.model import Catalog, Model
from ext_authz.check_request import parse_check
from ext_authz.decision import Admitted, decide
from ext_authz.offers import Offer, Offers, PricedDeployment
from ext_authz.own_keys import OwnKeyBook, OwnKeys
from gateway_core.endpoints import FACTS, SOLD, Endpoint
from gateway_core.ids import OrgId, ProviderName
from gateway_core.money import format_usd
from gateway_core.pricing import OrgTerms, PriceRow, Rate
from gateway_core.providers import PATHS_BY_KIND, ProviderKind
from gateway_core.usage import ASKED_METERS, TOKEN_METERS, Meter
from tests.support.admission import KEY, MODEL, VERSION, check_request
from tests.support.catalogs import deployment, provider

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT, OUTPUT = 5000, 400
NAMES = ("one", "two", "three")
RATES = st.builds(lambda price: Rate(price // 2, price), st.integers(0, 10**9))


@st.composite
def rows(draw: st.DrawFn, endpoint: Endpoint) -> PriceRow:
    needed = draw(st.one_of(st.just(frozenset[Meter]()), st.sampled_from(FACTS[endpoint].priced_by)))
    others = draw(st.sets(st.sampled_from([*TOKEN_METERS, *ASKED_METERS, Meter.REQUEST, Meter.SEARCH_UNIT])))
    return PriceRow(VERSION, {meter: draw(RATES) for meter in sorted({*needed, *others})})


@given(st.data())
def test_what_is_explained_is_what_admission_decides(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from(SOLD))
    kinds = st.sampled_from([kind for kind in ProviderKind if endpoint in PATHS_BY_KIND[kind]])
    priced = {
        ProviderName(name): (data.draw(kinds), data.draw(rows(endpoint)))
        for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    }
    terms = data.draw(st.one_of(st.none(), st.builds(OrgTerms, st.just(VERSION), st.integers(-(10**6), 10**6))))
    own_keys = {
        name: OwnKeyThere(falls_back=data.draw(st.booleans()), fee_ppm=data.draw(st.integers(0, 10**6)))
        for name in data.draw(st.sets(st.sampled_from(sorted(priced))))
    }
    is_visible = data.draw(st.booleans())
    orgs_allowed = (KEY.org_id if is_visible else OrgId("org_else"),)
    body_bytes = data.draw(st.integers(0, 20_000))
    question = RouteQuestion(
        endpoint=endpoint,
        model=MODEL,
        org_id=KEY.org_id,
        body_bytes=body_bytes,
        query_bytes=data.draw(st.integers(0, body_bytes)) if endpoint is Endpoint.RERANK else 0,
        files=data.draw(st.integers(1, 16)) if FACTS[endpoint].is_form else 0,
        file_bytes=data.draw(st.integers(0, body_bytes)) if FACTS[endpoint].is_form else 0,
        has_references=data.draw(st.booleans()),
        may_search=data.draw(st.booleans()),
        stream=data.draw(st.booleans()),
        max_output_tokens=data.draw(st.one_of(st.none(), st.integers(0, 2 * OUTPUT))),
        choices=data.draw(st.integers(1, 4)),
        units=data.draw(st.integers(0, 300)),
    )
    model = Model(MODEL, "test", 0, orgs_allowed=orgs_allowed, endpoints=(endpoint,))
    catalog = Catalog(
        VERSION,
        {name: provider(name, kind, credential="secret") for name, (kind, _) in priced.items()},
        {MODEL: model},
        tuple(deployment(MODEL, name) for name in priced),
    )
    found = Surroundings(
        MODEL,
        CONTEXT,
        OUTPUT,
        (endpoint,),
        (MatchedRoute(MODEL, MODEL, is_published=True, orgs_allowed=orgs_allowed),),
        tuple(Member(name, kind, 0, 1, MODEL, row, own_keys.get(name)) for name, (kind, row) in priced.items()),
        terms,
    )
    offer = Offer(
        MODEL,
        CONTEXT,
        OUTPUT,
        frozenset(orgs_allowed),
        {endpoint: tuple(PricedDeployment(name, MODEL, row) for name, (_, row) in priced.items())},
    )
    fields: dict[str, str | int | bool] = {
        "endpoint": str(endpoint),
        "model": MODEL,
        "mode": "live",
        "body_bytes": question.body_bytes,
        "choices": question.choices,
        "units": question.units,
        "stream": question.stream,
        "query_bytes": question.query_bytes,
        "references": question.has_references,
        "web_search": question.may_search,
        "own_keys_as_of": 7,
    }
    if FACTS[endpoint].is_form:
        fields |= {"files": question.files, "file_bytes": question.file_bytes}
    if question.max_output_tokens is not None:
        fields["max_output_tokens"] = question.max_output_tokens

    explained = explain(question, found, catalog, translated=False)

    decided = decide(
        parse_check(check_request(fields)),
        KEY,
        Offers(
            *(VERSION, {MODEL: offer}, {} if terms is None else {KEY.org_id: terms}),
            own_key_fees_ppm={name: key.fee_ppm for name, key in own_keys.items()},
            own_keys=OwnKeyBook(7, {KEY.org_id: OwnKeys({name: key.falls_back for name, key in own_keys.items()})}),
        ),
        now=NOW,
    )
    assert explained.is_served == isinstance(decided, Admitted), (explained.refused_because, decided)
    if isinstance(decided, Admitted):
        assert explained.hold is not None
        assert decided.hold_nano_usd is not None
        assert explained.hold.amount == format_usd(decided.hold_nano_usd)
