"""What is wrong with a thing of the catalogue beside the others: the one place where that is said, for one thing and for many. Pure.

A fault of something that names the thing itself, and stands in no field of it, is at `{model}` or `{provider}`. Where a provider
may be is judged elsewhere (`addresses.py`), because that may take long.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.model import is_moved
from control_plane.catalog.price_specs import PriceSpec
from control_plane.catalog.specs import ModelSpec, ProviderSpec, RouteSpec
from control_plane.errors import InvalidField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.pricing import FREE
from gateway_core.providers import ProviderKind
from gateway_core.usage import Meter

MODEL: Final = "{model}"
PROVIDER: Final = "{provider}"

_MISSING_PRICES_MAX: Final = 5
_METERS: Final = frozenset(map(str, Meter))


@dataclass(frozen=True, slots=True)
class Around:
    """The catalogue as it would be, as far as what is judged can name it; that is in it.

    Attributes:
        models_by_alias: more than one where an alias is claimed by several.
        routes_by_match: more than one where several match the same.
        deployed: models and providers.
        unpriced_by_provider: the models deployed there that have no price there, or none for an endpoint, sorted.
        orgs: those of the organisations that are named which there are.
        sold: on which endpoints a deployment sells its model.
        meters: those that a deployment has a price for, by its model and its provider; absent where there is none.
        without_credential: providers that lack one and cannot be asked without.
    """

    providers: AbstractSet[str]
    models: AbstractSet[str]
    models_by_alias: Mapping[str, AbstractSet[str]]
    routes_by_match: Mapping[str, Sequence[str]]
    deployed: AbstractSet[tuple[str, str]]
    unpriced_by_provider: Mapping[str, Sequence[str]]
    orgs: AbstractSet[str]
    sold: Mapping[tuple[str, str], Sequence[Endpoint]] = field(default_factory=dict)
    meters: Mapping[str, Mapping[str, AbstractSet[str]]] = field(default_factory=dict)
    without_credential: AbstractSet[str] = frozenset()


def unpriced_by_provider(
    deployed: Collection[tuple[str, str]],
    sold: Mapping[tuple[str, str], Sequence[Endpoint]],
    meters: Mapping[str, Mapping[str, AbstractSet[str]]],
) -> Mapping[str, Sequence[str]]:
    """Which of some deployments lack a price; see `Around`."""
    found: dict[str, list[str]] = {}
    for model, provider in sorted(deployed):
        priced = meters.get(model, {}).get(provider)
        if priced is None or unpriced(sold[model, provider], priced):
            found.setdefault(provider, []).append(model)
    return found


def unpriced(sold: Sequence[Endpoint], meters: AbstractSet[str]) -> list[Endpoint]:
    """The endpoints for which prices of these meters are not enough."""
    if FREE in meters:
        return []
    known = frozenset(map(Meter, meters & _METERS))
    return [endpoint for endpoint in sold if not FACTS[endpoint].is_priced(known)]


def _wanting(endpoint: Endpoint) -> str:
    needed = (" and ".join(sorted(meters)) for meters in FACTS[endpoint].priced_by)
    return f"on {endpoint}, which needs {', or '.join(needed)}"


class Destination(Protocol):
    """Where a provider's credential goes, and in which way."""

    @property
    def kind(self) -> ProviderKind:
        """By which it is known how it is taken."""

    @property
    def base_url(self) -> str:
        """To which it is sent."""


def is_credential_required(spec: ProviderSpec, now: Destination) -> bool:
    """Whether a provider that has a credential, which goes there now, has to be given it again."""
    # Else who may write the catalogue could have it sent to an address of theirs, or in clear what was only signed with.
    return "credential" not in spec.model_fields_set and (
        is_moved(now.base_url, spec.base_url) or _way(now.kind) != _way(spec.kind)
    )


def _way(kind: ProviderKind) -> tuple[str | None, str, str]:
    template = TEMPLATES[kind]
    return template.signing_service, template.credential_header, template.credential_prefix


def provider_faults(spec: ProviderSpec, *, now: Destination | None) -> Iterator[InvalidField]:
    """Of a provider; `now` is where its credential goes now, if it has one."""
    if now is not None and is_credential_required(spec, now):
        yield InvalidField("/credential", "has to be given again for another address or way of authentication")


def model_faults(name: str, spec: ModelSpec, around: Around) -> Iterator[InvalidField]:
    """Of a model: names that have a meaning already, and endpoints that a provider of it has no price for."""
    if around.models_by_alias.get(name, frozenset()) - {name}:
        yield InvalidField(MODEL, "is an alias of another model")
    seen = {name}
    for number, alias in enumerate(spec.aliases):
        if alias in around.models or alias in seen or around.models_by_alias[alias] != {name}:
            yield InvalidField(f"/aliases/{number}", "has a meaning already")
        elif alias in around.routes_by_match:
            yield InvalidField(f"/aliases/{number}", f"is the match of route {around.routes_by_match[alias][0]}")
        seen.add(alias)
    for number, endpoint in enumerate(spec.endpoints):
        for provider, meters in around.meters.get(name, {}).items():
            if endpoint in unpriced(around.sold[name, provider], meters):
                yield InvalidField(f"/endpoints/{number}", f"the model has no price at {provider} {_wanting(endpoint)}")


def deployment_faults(model: str, provider: str, around: Around) -> Iterator[InvalidField]:
    """Of a deployment: what it names and is not there."""
    if model not in around.models:
        yield InvalidField(MODEL, "no such model")
    if provider not in around.providers:
        yield InvalidField(PROVIDER, "no such provider")


def price_faults(model: str, provider: str, spec: PriceSpec, around: Around) -> Iterator[InvalidField]:
    """Of a price version, in itself and beside what is there."""
    if (model, provider) not in around.deployed:
        yield InvalidField(MODEL, "has no deployment at this provider")
    yield from spec.faults()
    meters = {FREE} if spec.free else {each.meter for each in spec.prices}
    for endpoint in unpriced(around.sold.get((model, provider), ()), meters) if meters else ():
        yield InvalidField("/prices", f"the model is sold {_wanting(endpoint)}")


def route_faults(name: str, spec: RouteSpec, around: Around) -> Iterator[InvalidField]:
    """Of a route: what it names and is not there, or is there twice, or has no price."""
    rivals = (rival for rival in around.routes_by_match[spec.match] if rival != name)
    if (rival := next(rivals, None)) is not None:
        yield InvalidField("/match", f"is the match of route {rival}")
    if spec.match in around.models_by_alias:
        yield InvalidField("/match", "is an alias; name the model")
    elif spec.published and "*" not in spec.match and spec.match not in around.models:
        yield InvalidField("/match", "no such model")
    for number, org_id in enumerate(spec.orgs_allowed):
        if org_id not in around.orgs:
            yield InvalidField(f"/orgs_allowed/{number}", "no such organisation")
    seen: set[str] = set()
    for priority, group in enumerate(spec.groups):
        for place, member in enumerate(group):
            for detail in _member_faults(spec, member.provider, seen, around):
                yield InvalidField(f"/groups/{priority}/{place}/provider", detail)
            seen.add(member.provider)


def _member_faults(spec: RouteSpec, provider: str, seen: Collection[str], around: Around) -> Iterator[str]:
    if provider in seen:
        yield "stands in the route twice"
    elif provider not in around.providers:
        yield "no such provider"
    elif spec.published:
        if provider in around.without_credential:
            yield "has no credential, and cannot be asked without one"
        if "*" not in spec.match and (spec.match, provider) not in around.deployed:
            yield "the model has no deployment there"
        models = _matched(spec.match, around.unpriced_by_provider.get(provider, ()))
        for model in islice(models, _MISSING_PRICES_MAX):
            priced = around.meters.get(model, {}).get(provider)
            lacking = None if priced is None else unpriced(around.sold[model, provider], priced)
            yield f"{model} has no price there{f' {_wanting(lacking[0])}' if lacking else ''}"


def _matched(pattern: str, names: Sequence[str]) -> Iterator[str]:
    """Which of sorted names a pattern with stars matches. Only those that begin as it does are looked at."""
    first, *rest = pattern.split("*")
    for at in range(bisect_left(names, first), len(names)):
        if not names[at].startswith(first):
            return
        if _matches(first, rest, names[at]):
            yield names[at]


def _matches(first: str, rest: Sequence[str], name: str) -> bool:
    """Whether what stands between the stars is found in a name that begins with `first`. Linear, whatever the pattern."""
    if not rest:
        return name == first
    *middle, last = rest
    if len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
