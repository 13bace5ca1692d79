"""Where a request would go and why, without sending it. Pure.

What it would be tried at is the chain that Envoy is told (`Catalog.chain`); everything else here says why there is no more in that, or none.
What would be held is by the rule of admission, which is a process of its own: a test compares the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import Field

from control_plane.catalog.model import Catalog, Chain, Policy, Provider
from control_plane.catalog.specs import ModelNameText, SoldEndpoint
from control_plane.catalog.stickiness import order_for
from control_plane.catalog.strategies import ATTEMPTS_MAX, ORDERED, TRIAL_EVERY, StickyBy, Strategy, nominal_cost
from control_plane.fields import Body
from control_plane.resource import Resource
from gateway_core.contract import Choice
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.extent import answers, dearest, input_tokens, is_asked, output_tokens
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.money import MAX_NANO_USD, Currency, NanoUsd, format_usd
from gateway_core.pricing import LIST_TERMS, OrgTerms, PriceRow, Terms, own_key_terms
from gateway_core.providers import ProviderKind, served

_BODY_BYTES: Final = 1000


class RouteQuestion(Body):
    """A request that is not sent."""

    endpoint: SoldEndpoint
    model: ModelNameText
    org_id: str | None = Field(
        default=None, max_length=200, description="Whose; what it may see and pays. None: anybody, at list prices."
    )
    body_bytes: int = Field(default=_BODY_BYTES, ge=0, le=2**31 - 1)
    stream: bool = False
    max_output_tokens: int | None = Field(default=None, ge=0, le=2**31 - 1, description="As the client bounds it.")
    choices: int = Field(default=1, ge=1, le=128, description="How many answers it asks for (`n`).")
    units: int = Field(
        default=1, ge=0, le=2**31 - 1, description="Pictures, characters or inputs, where the endpoint deals in them."
    )
    query_bytes: int = Field(default=0, ge=0, le=2**31 - 1, description="Length of a reranking's query, of the body.")
    files: int = Field(default=0, ge=0, le=2**31 - 1, description="How many a form brings.")
    file_bytes: int = Field(default=0, ge=0, le=2**31 - 1, description="How long they are together, of the body.")
    has_references: bool = Field(default=False, description="Whether it names pictures or files that are not in it.")
    may_search: bool = Field(default=False, description="Whether the provider may search for it.")
    sticky_value: str | None = Field(
        default=None, min_length=1, max_length=512, description="What it has where the route's `sticky_by` looks."
    )


class Match(StrEnum):
    """How a name came to a model, or a model to a route."""

    NAME = "name"
    ALIAS = "alias"
    PATTERN = "pattern"


class AskedWith(StrEnum):
    """Whose credential a provider is asked with."""

    OURS = "ours"
    OWN = "own"
    """The organisation's own, and no other."""
    OWN_THEN_OURS = "own_then_ours"
    """Its own and, in an attempt more, ours where that one is refused or fails."""


class ExplainedRoute(Resource):
    """A route that matches the model."""

    name: str
    match: str
    matched_by: Match
    passed_over_because: str | None = Field(description="Null for the one that is taken.")


class ExplainedMember(Resource):
    """A provider of the route."""

    provider: str
    kind: ProviderKind
    upstream_model: str | None
    weight: int
    share_percent: float | None = Field(description="Of what comes to its group; null where it is never tried.")
    position: int | None = Field(
        description="Its place among all that are tried, from 1 on; null where they are drawn or take turns."
    )
    nominal_cost: str | None = Field(
        description="What a nominal request costs us there, in US dollars, by which `lowest_cost` compares; null if nobody knows."
    )
    first_byte_ms: int | None = Field(
        description="To the first byte of an answer, by which `lowest_latency` compares; null where the route has another strategy, or it has not "
        "been measured."
    )
    path: str | None = Field(description="What it is asked for.")
    asked_with: AskedWith | None = Field(
        description="Whose credential: ours, the organisation's own, or its own and then ours, where it wants that; null where it is never tried."
    )
    skipped_because: str | None


class ExplainedGroup(Resource):
    """Providers that share what comes to them; the next group is tried when one of them has failed."""

    members: list[ExplainedMember]


class ExplainedHold(Resource):
    """What would be held until the request is over, as the most it can cost."""

    currency: Currency = "USD"
    amount: str
    dearest_provider: str = Field(description="By whose prices; more than one may be as dear.")
    input_tokens: int = Field(description="At most.")
    output_tokens: int = Field(description="Of each answer, at most.")


class Explanation(Resource):
    """Where the request would go."""

    is_served: bool
    refused_because: str | None = Field(description="Null if it is served.")
    model: str | None = Field(description="The model that the name stands for.")
    named_by: Match | None
    catalog_revision: int
    route: str | None = Field(description="The one that is taken.")
    strategy: Strategy | None = Field(description="Of the route.")
    sticky_by: StickyBy | None
    choice: Choice | None = Field(description="Why the first provider is the one that it is.")
    routes: list[ExplainedRoute] = Field(description="All that match, the one that is taken first.")
    groups: list[ExplainedGroup] = Field(description="In the order in which they are tried.")
    attempts_max: int | None = Field(description="Groups beyond this one are not tried; null: all are.")
    hold: ExplainedHold | None = Field(description="Null where nothing would be.")


@dataclass(frozen=True, slots=True)
class MatchedRoute:
    """A route whose match fits the model."""

    name: str
    match: str
    is_published: bool
    orgs_allowed: tuple[OrgId, ...]

    @property
    def is_pattern(self) -> bool:
        """Whether it may match other models too."""
        return "*" in self.match


@dataclass(frozen=True, slots=True)
class OwnKeyThere:
    """A key of the organisation that asks, at a provider.

    Attributes:
        falls_back: whether ours is tried when it is refused.
        fee_ppm: what share of the list price is charged for its requests.
    """

    falls_back: bool
    fee_ppm: int

    @property
    def terms(self) -> Terms:
        """What a request costs that it was good for."""
        return own_key_terms(self.fee_ppm)


@dataclass(frozen=True, slots=True)
class Member:
    """A provider of the route, whether it can be used or not.

    Attributes:
        upstream_model: its own name for the model; None if the model is not deployed there.
        price: the one in force; None if there is none.
        own_key: None if the organisation has none there, or nobody in particular asks.
    """

    provider: ProviderName
    kind: ProviderKind
    priority: int
    weight: int
    upstream_model: str | None
    price: PriceRow | None
    own_key: OwnKeyThere | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is about a name.

    Attributes:
        model: its own name; None if nothing is called so.
        routes: all that match the model; the one that is taken, if any, is the first of those that are published: an exact one, or
            else the longest pattern.
        members: those of the route that is taken.
        terms: of the organisation that asks; None if it has none.
    """

    model: ModelName | None
    context_tokens: int = 0
    max_output_tokens: int = 0
    endpoints: tuple[str, ...] = ()
    routes: tuple[MatchedRoute, ...] = ()
    members: tuple[Member, ...] = field(default=())
    terms: OrgTerms | None = None

    @property
    def taken(self) -> MatchedRoute | None:
        """The route that serves the model."""
        return next((route for route in self.routes if route.is_published), None)


def explain(asked: RouteQuestion, found: Surroundings, catalog: Catalog, *, translated: bool) -> Explanation:
    """Of a name, what there is about it, and the catalogue as Envoy is told it, all of one moment."""
    taken = found.taken
    name = ModelName(asked.model)
    chain = catalog.chain(asked.endpoint, name, translated=translated)
    refusal = _refusal(asked, found, chain, translated=translated)
    policy = None if chain is None else chain.policy
    return Explanation(
        is_served=refusal is None,
        refused_because=refusal,
        model=found.model,
        named_by=None if found.model is None else Match.NAME if found.model == asked.model else Match.ALIAS,
        catalog_revision=catalog.revision,
        route=taken and taken.name,
        strategy=policy and policy.strategy,
        sticky_by=policy and policy.sticky_by,
        choice=policy and _choice(policy, asked.sticky_value),
        routes=[_route(route, taken) for route in found.routes],
        groups=_groups(asked, found, chain, catalog, translated=translated),
        attempts_max=policy and policy.attempts_max,
        hold=_hold(asked, found, found.model, translated=translated)
        if refusal is None and found.model is not None
        else None,
    )


def _refusal(asked: RouteQuestion, found: Surroundings, chain: Chain | None, *, translated: bool) -> str | None:
    facts = FACTS[asked.endpoint]
    if found.model is None:
        return "no model has this name, nor is it an alias of one"
    if found.taken is None:
        return "no published route matches the model"
    if asked.org_id is not None and found.taken.orgs_allowed and OrgId(asked.org_id) not in found.taken.orgs_allowed:
        return "the route is not for this organisation, to which it looks as if there were no such model"
    if asked.endpoint not in found.endpoints:
        return "the model is not sold on this endpoint"
    if chain is None:
        return "no provider of the route can serve it"
    if not chain.groups:
        return "every provider of the route that could serve it is paused"
    sold = _sold(asked.endpoint, found, translated=translated)
    if (facts.is_session or facts.keeps) and any(member.own_key is not None for member in sold.values()):
        return (
            "the organisation has a key of its own at a provider of the route, with which this endpoint is not offered"
        )
    prices = _prices(sold).values()
    if not all(price.is_usable for price in prices):
        return "a provider of the route has a price that this version cannot read"
    if not all(price.is_free or facts.is_priced(price.rates.keys()) for price in prices):
        return "a provider of the route has no price for this endpoint"
    if facts.is_usage_in_stream_only and not asked.stream and not all(is_asked(price, facts) for price in prices):
        return "it is served as a stream only"
    return None


def _route(route: MatchedRoute, taken: MatchedRoute | None) -> ExplainedRoute:
    passed_over = None
    if route is not taken:
        if not route.is_published:
            passed_over = "it is not published"
        elif taken is not None and not taken.is_pattern:
            passed_over = "a route that names the model comes before a pattern"
        else:
            passed_over = "a longer pattern comes before a shorter one"
    matched_by = Match.PATTERN if route.is_pattern else Match.NAME
    return ExplainedRoute(name=route.name, match=route.match, matched_by=matched_by, passed_over_because=passed_over)


def _choice(policy: Policy, sticky_value: str | None) -> Choice:
    is_kept = policy.sticky_by is not None and sticky_value is not None
    return Choice.STICKY if is_kept else Choice(policy.strategy.value)


@dataclass(frozen=True, slots=True)
class _Turn:
    """When a provider of the chain is tried.

    Attributes:
        share_percent: None where the attempts are over before.
    """

    share_percent: float | None
    position: int | None


def _turns(chain: Chain, sticky_value: str | None) -> Mapping[ProviderName, _Turn]:
    """Of every provider in the chain."""
    policy, found, earlier = chain.policy, dict[ProviderName, _Turn](), 0
    value = sticky_value if policy.sticky_by is not None else None
    has_one_order = policy.strategy in ORDERED or value is not None
    tries = policy.attempts_max or ATTEMPTS_MAX
    for number, group in enumerate(chain.groups):
        weights = {deployment.provider: deployment.weight for deployment in group}
        order = [*weights] if value is None else order_for(value, weights)
        has_trials = number == 0 and len(order) > 1 and policy.strategy is Strategy.LOWEST_LATENCY
        for place, provider in enumerate(order):
            before = number if policy.draws else earlier
            if has_one_order:
                others = 100 / TRIAL_EVERY if has_trials else 0
                share = others / (len(order) - 1) if place else 100 - others
                before += place
            else:
                share = 100 * weights[provider] / sum(weights.values())
            found[provider] = _Turn(
                share_percent=round(share, 1) if before < tries else None,
                position=earlier + place + 1 if has_one_order else None,
            )
        earlier += len(group)
    return found


def _groups(
    asked: RouteQuestion, found: Surroundings, chain: Chain | None, catalog: Catalog, *, translated: bool
) -> list[ExplainedGroup]:
    """Every member of the route, in the chain or not."""
    turns = {} if chain is None else _turns(chain, asked.sticky_value)
    by_speed = chain is not None and chain.policy.strategy is Strategy.LOWEST_LATENCY
    speeds = {d.provider: d.figure for group in chain.groups for d in group} if chain is not None and by_speed else {}
    return [
        ExplainedGroup(
            members=[
                _member(
                    asked,
                    member,
                    turns.get(member.provider),
                    speeds.get(member.provider),
                    catalog,
                    translated=translated,
                )
                for member in found.members
                if member.priority == priority
            ]
        )
        for priority in sorted({member.priority for member in found.members})
    ]


def _member(
    asked: RouteQuestion,
    member: Member,
    turn: _Turn | None,
    first_byte_ms: int | None,
    catalog: Catalog,
    *,
    translated: bool,
) -> ExplainedMember:
    is_tried = turn is not None and turn.share_percent is not None and _own_key_opens(asked, member, catalog)
    endpoint, provider = asked.endpoint, catalog.providers.get(member.provider)
    cost = None if member.price is None else nominal_cost(member.price)
    return ExplainedMember(
        provider=member.provider,
        kind=member.kind,
        upstream_model=member.upstream_model,
        weight=member.weight,
        share_percent=turn.share_percent if turn is not None and is_tried else None,
        position=turn.position if turn is not None and is_tried else None,
        nominal_cost=None if cost is None else format_usd(cost),
        first_byte_ms=first_byte_ms,
        path=_path(provider, endpoint) if is_tried and provider is not None else None,
        asked_with=_asked_with(member) if is_tried else None,
        skipped_because=None
        if is_tried
        else _why_skipped(asked, member, catalog, is_beyond=turn is not None, translated=translated),
    )


def _own_key_opens(asked: RouteQuestion, member: Member, catalog: Catalog) -> bool:
    """Whether there is a cluster with the organisation's key, if it has one."""
    return member.own_key is None or any(
        key.org_id == asked.org_id and key.provider.name == member.provider for key in catalog.own_keys
    )


def _asked_with(member: Member) -> AskedWith:
    if member.own_key is None:
        return AskedWith.OURS
    return AskedWith.OWN_THEN_OURS if member.own_key.falls_back else AskedWith.OWN


def _path(provider: Provider, endpoint: Endpoint) -> str | None:
    """Its own, or that on which it is asked in its own dialect."""
    translation = provider.translation(endpoint)
    return provider.path(endpoint) if translation is None else translation.path


def _why_skipped(asked: RouteQuestion, member: Member, catalog: Catalog, *, is_beyond: bool, translated: bool) -> str:
    if member.provider not in catalog.providers:
        return "it cannot be asked: its credential is missing or cannot be read, or its address is none"
    if member.upstream_model is None:
        return "the model is not deployed there"
    if member.price is None:
        return "the model has no price there"
    if not served(member.kind, (asked.endpoint,), translated=translated):
        return "its kind does not serve the endpoint"
    if (state := catalog.keeping_out(member.provider, member.upstream_model)) is not None and not is_beyond:
        return f"it is {state}"
    if not _own_key_opens(asked, member, catalog):
        return "the organisation's own key there cannot be read, and ours is not sent in its place"
    return "the route makes no more attempts" if is_beyond else "the model is not sold on the endpoint"


def _sold(endpoint: Endpoint, found: Surroundings, *, translated: bool) -> Mapping[ProviderName, Member]:
    """Every provider that admission counts with: also one that Envoy is not told of, because its credential does not open."""
    return {
        member.provider: member
        for member in found.members
        if member.price is not None
        and member.upstream_model is not None
        and served(member.kind, (endpoint,), translated=translated)
    }


def _prices(sold: Mapping[ProviderName, Member]) -> Mapping[ProviderName, PriceRow]:
    return {name: member.price for name, member in sold.items() if member.price is not None}


def _possible_terms(found: Surroundings, model: ModelName, member: Member) -> Sequence[Terms]:
    """What the organisation may come to pay there, with its own key and without."""
    usual = LIST_TERMS if found.terms is None else found.terms.at(model, member.provider)
    if member.own_key is None:
        return (usual,)
    return (member.own_key.terms, usual) if member.own_key.falls_back else (member.own_key.terms,)


def _hold(asked: RouteQuestion, found: Surroundings, model: ModelName, *, translated: bool) -> ExplainedHold:
    facts = FACTS[asked.endpoint]
    output = output_tokens(asked, facts, found.max_output_tokens)
    sold = _sold(asked.endpoint, found, translated=translated)
    amounts = {
        provider: max(
            dearest(*(asked, facts, price, possible), context_tokens=found.context_tokens, asked_tier=None).nano_usd(
                output * answers(asked, facts)
            )
            for possible in _possible_terms(found, model, sold[provider])
        )
        for provider, price in _prices(sold).items()
    }
    provider = max(sorted(amounts), key=lambda each: amounts[each])
    return ExplainedHold(
        amount=format_usd(NanoUsd(min(amounts[provider], MAX_NANO_USD))),
        dearest_provider=provider,
        input_tokens=input_tokens(asked, facts, found.context_tokens),
        output_tokens=output,
    )
