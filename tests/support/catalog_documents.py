"""The catalogue as a document: one that has a bit of everything, and any at random."""

from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from control_plane.catalog.document import CatalogDocument, nested
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.price_specs import Condition, MeterPrice, PriceSpec, Unit
from control_plane.catalog.specs import DeploymentSpec, GroupMember, ModelSpec, ProviderSpec, RouteSpec
from control_plane.catalog.strategies import ORDERED, StickyBy, Strategy
from gateway_core.providers import ProviderKind
from gateway_core.usage import TOKEN_METERS, Meter
from tests.support.catalog_api import MODEL, PROVIDER

INPUT_PRICE = {"meter": "input", "unit": "1M tokens", "cost": "0.15", "price": "0.20"}

DOCUMENT: dict[str, Any] = {
    "providers": {"one": PROVIDER, "two": PROVIDER | {"headers": {"x-b": "1", "x-a": "2"}, "requests_max": 7}},
    "models": {
        "m": MODEL | {"aliases": ["m-alias", "a-alias"], "capabilities": ["vision", "audio"]},
        "n/1": MODEL | {"deprecated_at": "2030-01-01T02:00:00+02:00", "replacement": "m"},
    },
    "deployments": {
        "m": {"one": {"upstream_model": "up"}, "two": {"upstream_model": "up"}},
        "n/1": {"one": {"upstream_model": "n"}},
    },
    "prices": {"m": {"one": {"prices": [INPUT_PRICE]}, "two": {"free": True}}},
    "routes": {
        "m": {"match": "m", "groups": [[{"provider": "two", "weight": 3}, {"provider": "one"}]], "attempts_max": 1},
        "rest": {"match": "n*", "groups": [[{"provider": "one"}]], "published": False},
    },
}

_NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
_MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,30}", fullmatch=True)
_STRATEGIES = st.fixed_dictionaries({"strategy": st.sampled_from(Strategy)}) | st.fixed_dictionaries(
    {"strategy": st.sampled_from(sorted({*Strategy} - ORDERED)), "sticky_by": st.sampled_from(StickyBy)}
)
_HEADERS = st.dictionaries(
    st.from_regex(r"x-[a-z]{1,9}", fullmatch=True).filter(lambda name: not name.startswith(("x-tg", "x-envoy"))),
    st.from_regex(r"[ -~]{0,20}", fullmatch=True),
    max_size=3,
)
_EARLIEST, _LATEST = datetime(1971, 1, 1), datetime(8999, 1, 1)  # noqa: DTZ001 - the zone is drawn
_AMOUNTS = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,9})?", fullmatch=True)


def _maybe(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | numbers


@st.composite
def _prices(draw: st.DrawFn) -> PriceSpec:
    if draw(st.booleans()):
        return PriceSpec(free=True)
    # What every endpoint of chat needs, and others.
    others = sorted({*TOKEN_METERS} - {Meter.INPUT, Meter.OUTPUT})
    meters = [Meter.INPUT, Meter.OUTPUT, *draw(st.lists(st.sampled_from(others), unique=True, max_size=3))]
    bounds = draw(st.lists(st.integers(1, 10**6), unique=True, max_size=2))
    return PriceSpec(
        prices=[
            MeterPrice(
                meter=Meter(meter),
                unit=draw(st.sampled_from([Unit.THOUSAND_TOKENS, Unit.MILLION_TOKENS])),
                condition=Condition(input_tokens_above=bound),
                cost=draw(_AMOUNTS),
                price=draw(st.none() | _AMOUNTS),
            )
            for meter in meters
            for bound in [None, *bounds]
        ]
    )


@st.composite
def documents(draw: st.DrawFn) -> CatalogDocument:
    """Any document that an empty catalogue takes. Every deployment has a price."""
    providers = draw(
        st.dictionaries(
            _NAMES,
            st.builds(
                ProviderSpec,
                kind=st.sampled_from([kind for kind in ProviderKind if not TEMPLATES[kind].requires_credential]),
                base_url=st.sampled_from(["https://api.example.com/v1", "http://127.0.0.1:9000"]),
                headers=_HEADERS,
                connect_timeout_ms=_maybe(st.integers(1, 60_000)),
                connections_max=_maybe(st.integers(1, 10**6)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    names = draw(st.lists(_MODELS, unique=True, min_size=1, max_size=8))
    models = {
        name: draw(
            st.builds(
                ModelSpec,
                owned_by=st.from_regex(r"[ -~]{1,20}", fullmatch=True),
                context_tokens=st.integers(1, 2 * 10**9),
                max_output_tokens=st.integers(1, 2 * 10**9),
                aliases=st.just(names[4 + number : 5 + number]),
                capabilities=st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True), max_size=3),
                deprecated_at=st.none()
                | st.datetimes(_EARLIEST, _LATEST, timezones=st.timezones(), allow_imaginary=False),
                replacement=st.none() | _MODELS,
            )
        )
        for number, name in enumerate(names[:4])
    }
    deployed = draw(st.sets(st.tuples(st.sampled_from(sorted(models)), st.sampled_from(sorted(providers))), max_size=6))
    routes = {}
    for number, match in enumerate(draw(st.sets(st.sampled_from([*sorted(models), "*", "a*", "*-*b"]), max_size=4))):
        able = [name for name in sorted(providers) if "*" in match or (match, name) in deployed]
        chosen = draw(st.lists(st.sampled_from(able or sorted(providers)), unique=True, min_size=1, max_size=3))
        cut = draw(st.integers(1, len(chosen)))
        groups = [
            [GroupMember(provider=name, weight=draw(st.integers(1, 1000))) for name in part]
            for part in (chosen[:cut], chosen[cut:])
            if part
        ]
        routes[draw(_MODELS) + str(number)] = RouteSpec(
            match=match,
            groups=groups,
            published=bool(able) and draw(st.booleans()),
            attempts_max=draw(_maybe(st.integers(1, 16))),
            retry_statuses=draw(st.none() | st.lists(st.integers(400, 499), max_size=3)),
            idle_timeout_ms=draw(_maybe(st.integers(1, 1000))),
            cache_ttl_s=draw(_maybe(st.integers(0, 1000))),
            **draw(_STRATEGIES),
        )
    return CatalogDocument(
        providers=providers,
        models=models,
        deployments=nested({key: DeploymentSpec(upstream_model=draw(_MODELS)) for key in deployed}),
        prices=nested({key: draw(_prices()) for key in deployed}),
        routes=routes,
    )
