"""The route table: by endpoint and model, in one exact-match look-up, to a chain of providers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain as flat
from typing import Final, assert_never
from urllib.parse import urlsplit

from control_plane.catalog.kinds import KindTemplate
from control_plane.catalog.model import Catalog, Deployment, Policy, Provider
from control_plane.catalog.strategies import ATTEMPTS_MAX
from control_plane.settings import Settings
from control_plane.xds.browsers import CORS_FILTER, cors_policy
from control_plane.xds.local_replies import LIMITED_FLAG
from control_plane.xds.lua import BEHIND_ADMISSION, FRONT_FILTER, upstream_filter
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from control_plane.xds.replicas import route_retries
from gateway_core.clusters import Cluster, capped_cluster, provider_cluster, session_cluster, translated_cluster
from gateway_core.contract import CREDENTIAL_HEADERS, GrantField, Header, Metadata, RouteField
from gateway_core.endpoints import FACTS, OF_WHAT_IS_KEPT, SOLD, Endpoint
from gateway_core.errors import KEEPER_PAUSED, NOT_FOUND, PROVIDER_PAUSED, ApiError
from gateway_core.ids import ModelName, ProviderName
from gateway_core.offering import Offering
from gateway_core.route_keys import (
    BATCHES_ROUTE_KEY,
    kept_route_key,
    pinned_route_key,
    route_key,
    simulator_kept_route_key,
    simulator_route_key,
)
from gateway_core.usage import SWITCHED

ROUTE_CONFIG: Final = "gateway"

RETRY_ON: Final = "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-status-codes"
"""Where there is another group to go to; `envoy/lua/own_keys.lua` has it too, and the next."""

RETRIABLE_STATUS: Final = (401, 403, 408, 409, 429, 529)
"""Besides 5xx. 401 and 403 are about our own credential there; another provider's may be good."""

_RETRY_AFTER: Final = "retry-after"
_WAITS_S_MAX: Final = 2
"""How long a request may wait for a provider that has no other beside it and says when to come back. Up to 9."""

_HIDDEN_RESPONSE_HEADERS: Final = (
    *("set-cookie", "openai-organization", "openai-project", "anthropic-organization-id"),
    *("access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"),
    *(
        Header.COST,
        Header.CLUSTER,
        Header.MAX_TOKENS,
        Header.CACHE,
        Header.UNTRANSLATABLE,
        Header.OWN_REPLY,
        Header.LIMITS,
        Header.ORG,
    ),
)
"""What a provider tells about our account with it or lets pages of other origins read, and what only we tell."""


_AT_KEEPERS: Final = tuple(each for each in OF_WHAT_IS_KEPT if not FACTS[each].is_answered_here)

_KEPT_AT: Final[JsonObject] = {
    "response_headers_to_add": [
        {
            "header": {"key": Header.KEPT_AT, "value": "%UPSTREAM_CLUSTER%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]
}
"""The one thing about an answer that the front filter cannot see."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One provider of a chain, the cluster that leads to it, and what it has to be sent.

    Attributes:
        peculiarities: what its kind takes in another way than others: more parameters of its cluster's script.
        headers: the names of those that its provider is configured with.
        own_keys_allowed: whether organisations may have keys of their own there.
        is_capped: whether it may be full.
    """

    provider: ProviderName
    cluster: str
    path: str
    upstream_model: str
    weight: int
    peculiarities: tuple[tuple[str, str], ...] = ()
    headers: frozenset[str] = frozenset()
    own_keys_allowed: bool = False
    is_translated: bool = False
    is_capped: bool = False


@dataclass(frozen=True, slots=True)
class ProviderRoute:
    """An endpoint and a name, and the groups of hops behind it, in order; none if all are paused. Equal routes have equal bytes.

    Attributes:
        name: the one that is asked for: the model's own, or an alias.
        model: the model it stands for.
        pinned: its only provider, where requests name what that one keeps.
    """

    endpoint: Endpoint
    name: ModelName
    model: ModelName
    groups: tuple[tuple[Hop, ...], ...]
    policy: Policy
    pinned: ProviderName | None = None

    @property
    def key(self) -> str:
        """What the front filter writes into the routing header for it."""
        if self.pinned is not None:
            return pinned_route_key(self.endpoint, self.pinned, self.name)
        return route_key(self.endpoint, self.name)

    @property
    def tries(self) -> tuple[tuple[Hop, ...], ...]:
        """What is tried one after the other: a hop of each group, as Envoy draws it, or every hop."""
        return self.groups if self.policy.draws else tuple((hop,) for group in self.groups for hop in group)

    @property
    def has_order_per_request(self) -> bool:
        """Whether the front filter has anything to choose: not where each group is one hop."""
        return self.policy.has_order_per_request and len(self.tries) > len(self.groups)

    @property
    def is_translated(self) -> bool:
        """Whether a hop needs the translator."""
        return any(hop.is_translated for group in self.groups for hop in group)

    @property
    def is_capped(self) -> bool:
        """Whether a hop may be full."""
        return any(hop.is_capped for group in self.groups for hop in group)

    @property
    def configured_headers(self) -> Sequence[str]:
        """The headers that are one provider's business and not the next one's, nor the client's."""
        hops = [hop for group in self.groups for hop in group]
        is_alone = len({hop.provider for hop in hops}) == 1
        return () if is_alone else sorted({name for hop in hops for name in hop.headers})

    @property
    def chain(self) -> str | None:
        """What is tried, for a request with its organisation's own key somewhere; None where nobody may have one."""
        if self.pinned is not None or not any(hop.own_keys_allowed for group in self.groups for hop in group):
            return None
        return _written(self.tries[: self.policy.attempts_max or ATTEMPTS_MAX])

    @property
    def offering(self) -> Offering:
        """What a request gets that takes it."""
        return Offering(self.model, {hop.provider: hop.upstream_model for group in self.groups for hop in group})


@dataclass(frozen=True, slots=True)
class KeptRoute:
    """To what a provider keeps, whatever is done with it; no model is asked.

    Attributes:
        paths: those of the provider, with `{id}` in the place of the id.
        is_paused: whether it is asked nothing.
    """

    provider: ProviderName
    paths: tuple[tuple[Endpoint, str], ...]
    is_paused: bool

    @property
    def key(self) -> str:
        """What the front filter writes into the routing header for it, once admission has named the provider."""
        return kept_route_key(self.provider)


def catalog_routes(catalog: Catalog, *, translated: bool) -> Iterable[ProviderRoute | KeptRoute]:
    """Every route that a catalogue has, with the help of a translator or without."""
    routes = tuple(provider_routes(catalog, translated=translated))
    return (*routes, *flat.from_iterable(map(_pinned, routes)), *_kept_routes(catalog))


def provider_routes(catalog: Catalog, *, translated: bool) -> Iterable[ProviderRoute]:
    """Those to every provider of a model."""
    for chain in catalog.chains(translated=translated):
        hops = tuple(tuple(_hop(catalog, chain.endpoint, each) for each in group) for group in chain.groups)
        yield ProviderRoute(chain.endpoint, chain.name, chain.model, hops, chain.policy)


def _pinned(route: ProviderRoute) -> Iterable[ProviderRoute]:
    """The same to each of the providers alone, where one of them may be the one that keeps what is named."""
    if FACTS[route.endpoint].keeps is not None:
        for hop in flat.from_iterable(route.groups):
            yield replace(route, groups=((replace(hop, weight=1),),), pinned=hop.provider)


def _kept_routes(catalog: Catalog) -> Iterable[KeptRoute]:
    for provider in catalog.providers.values():
        paths = tuple((each, path) for each in _AT_KEEPERS if (path := provider.path(each)) is not None)
        if paths:
            yield KeptRoute(provider.name, paths, catalog.is_paused(provider.name))


def route_configuration(
    routes: Iterable[ProviderRoute | KeptRoute], settings: Settings, own_keys_as_of: int
) -> JsonObject:
    """The RouteConfiguration resource. It says up to which change of organisations' own keys there are clusters for them."""
    actions: dict[str, Json] = {route.key: action(route, settings) for route in routes}
    actions[route_key(Endpoint.MODELS, "")] = _action(
        {
            "name": route_key(Endpoint.MODELS, ""),
            "match": {"prefix": "/"},
            "route": {
                "cluster": Cluster.CONTROL_PLANE,
                "timeout": "10s",
                "retry_policy": route_retries(attempt_timeout="5s"),
            },
        }
    )
    actions[BATCHES_ROUTE_KEY] = _action(_batches_route(settings))
    if settings.simulator_url is not None:
        for endpoint in SOLD:
            actions[simulator_route_key(endpoint)] = _action(_test_route(endpoint, settings.simulator_url, settings))
        base = urlsplit(settings.simulator_url).path.rstrip("/")
        actions[simulator_kept_route_key()] = _action(
            _kept_route(
                simulator_kept_route_key(),
                Cluster.SIMULATOR,
                [(endpoint, base + FACTS[endpoint].path) for endpoint in _AT_KEEPERS],
                settings,
            )
        )
    return {
        "name": ROUTE_CONFIG,
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                **_as_of(own_keys_as_of),
                "response_headers_to_remove": list(_HIDDEN_RESPONSE_HEADERS),
                **_for_browsers(settings),
                "matcher": {
                    "matcher_tree": {
                        "input": {
                            "name": Header.ROUTE,
                            "typed_config": typed(
                                "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=Header.ROUTE
                            ),
                        },
                        "exact_match_map": {"map": actions},
                    },
                    # Admission knows the model but no route does, or the front filter was passed over: closed.
                    "on_no_match": _action(_nowhere() if settings.cors_origins else _answered("not_found", NOT_FOUND)),
                },
            }
        ],
    }


def _as_of(own_keys_as_of: int) -> JsonObject:
    if not own_keys_as_of:
        return {}
    return {"metadata": {"filter_metadata": {FRONT_FILTER: {RouteField.OWN_KEYS_AS_OF: own_keys_as_of}}}}


def _for_browsers(settings: Settings) -> dict[str, Json]:
    return (
        {"typed_per_filter_config": {CORS_FILTER: cors_policy(settings.cors_origins)}} if settings.cors_origins else {}
    )


def action(route: ProviderRoute | KeptRoute, settings: Settings) -> JsonObject:
    """What stands in the map under the route's key: a Matcher.OnMatch."""
    match route:
        case ProviderRoute():
            return _action(_provider_route(route, settings) if route.groups else _answered(route.key, PROVIDER_PAUSED))
        case KeptRoute():
            found = _kept_route(route.key, provider_cluster(route.provider), route.paths, settings)
            return _action(_answering(found, KEEPER_PAUSED) if route.is_paused else found)
        case _:
            assert_never(route)


def has_own_cluster_for_sessions(provider: Provider) -> bool:
    """Whether sessions go by another cluster than requests, which may be of HTTP/2 wherever there is TLS."""
    return provider.tls and provider.path(Endpoint.REALTIME) is not None


def _hop(catalog: Catalog, endpoint: Endpoint, deployment: Deployment) -> Hop:
    provider = catalog.providers[deployment.provider]
    path = provider.path(endpoint)
    headers = frozenset(map(str.lower, provider.headers))
    if path is not None:
        peculiarities = _peculiarities(provider.template) if endpoint is Endpoint.CHAT else ()
        return Hop(
            provider.name,
            _cluster_of(provider, endpoint),
            path,
            deployment.upstream_model,
            deployment.weight,
            peculiarities,
            headers,
            own_keys_allowed=provider.own_keys_allowed,
            is_capped=provider.is_capped,
        )
    translation = provider.translation(endpoint)
    assert translation is not None  # noqa: S101 - a chain has only providers that serve its endpoint
    # What is written here is in the client's dialect still; to what is peculiar to the provider the translator keeps.
    cluster = translated_cluster(provider.name, translation.client)
    path = translation.path + translation.told
    return Hop(
        provider.name,
        cluster,
        path,
        deployment.upstream_model,
        deployment.weight,
        headers=headers,
        is_translated=True,
        own_keys_allowed=provider.own_keys_allowed,
        is_capped=provider.is_capped,
    )


def _cluster_of(provider: Provider, endpoint: Endpoint) -> str:
    """The cluster that leads to a provider untranslated. A session is one connection, which goes straight there."""
    if FACTS[endpoint].is_session:
        return (session_cluster if has_own_cluster_for_sessions(provider) else provider_cluster)(provider.name)
    return (capped_cluster if provider.is_capped else provider_cluster)(provider.name)


def _peculiarities(template: KindTemplate) -> tuple[tuple[str, str], ...]:
    bound, refuses = template.output_bound, template.refuses_stream_options
    return (
        *([] if bound is None else [(RouteField.OUTPUT_BOUND, bound)]),
        *([(RouteField.REFUSES_STREAM_OPTIONS, "true")] if refuses else []),
    )


def _action(route: JsonObject) -> JsonObject:
    return {"action": {"name": "route", "typed_config": typed("envoy.config.route.v3.Route", **route)}}


def _provider_route(route: ProviderRoute, settings: Settings) -> JsonObject:
    offering = str(route.offering)
    front: dict[str, Json] = {RouteField.OFFERING: offering, **_choice(route)}
    if route.policy.cache_ttl_s is not None:
        front[RouteField.CACHE_TTL_S] = route.policy.cache_ttl_s
    metadata: dict[str, Json] = {FRONT_FILTER: front}
    if route.chain is not None:
        front[RouteField.CHAIN] = route.chain
        metadata[BEHIND_ADMISSION] = {RouteField.CHAIN: route.chain}
    told: dict[str, Json] = {RouteField.HEADERS: " ".join(route.configured_headers)} if route.configured_headers else {}
    for group in route.tries:
        for hop in group:
            parameters: dict[str, Json] = {RouteField.PATH: hop.path, RouteField.MODEL: hop.upstream_model}
            metadata[upstream_filter(hop.cluster)] = parameters | dict(hop.peculiarities) | told
            if route.tries[0] == (hop,) and not hop.peculiarities:
                # The first attempt is certain, or likely, so the front filter prepares it while it has the body in hand. It prepares what
                # everybody takes.
                front |= {RouteField.CLUSTER: hop.cluster, **parameters}
    return {
        "name": route.key,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": metadata},
        "route": {
            "inline_cluster_specifier_plugin": {
                "extension": {
                    "name": "envoy.router.cluster_specifier_plugin.priority_group",
                    "typed_config": typed_struct(
                        "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier",
                        priority_groups=[_priority_group(number, group) for number, group in enumerate(route.tries)],
                        **_order_of_its_own(route),
                    ),
                }
            },
            "auto_host_rewrite": True,
            # An answer may stream as long as the listener lets any request run; an attempt has bounds of its own.
            "timeout": "0s",
            "retry_policy": _retry_policy(
                route.endpoint,
                len(route.tries),
                route.policy,
                settings,
                translated=route.is_translated,
                capped=route.is_capped,
            ),
            **_life(route.endpoint, settings),
        },
        # What an attempt is given of them, the next one is rid of; so a client's would reach the first alone.
        **({"request_headers_to_remove": list(route.configured_headers)} if route.configured_headers else {}),
        **_kept_at(route.endpoint),
    }


def _kept_route(name: str, cluster: str, paths: Iterable[tuple[Endpoint, str]], settings: Settings) -> JsonObject:
    """To one provider, once: what is done there may not be done twice. The front filter writes the whole path."""
    return {
        "name": name,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {BEHIND_ADMISSION: {RouteField.CLUSTER: cluster, **dict(paths)}}},
        "route": {
            "cluster": cluster,
            "auto_host_rewrite": True,
            "timeout": "0s",
            "retry_policy": {
                "num_retries": 0,
                "per_try_timeout": f"{settings.provider_timeout_s}s",
                "per_try_idle_timeout": f"{settings.provider_idle_timeout_s}s",
            },
        },
        **_KEPT_AT,
    }


def _answering(route: JsonObject, error: ApiError) -> JsonObject:
    """The same to the front filter, which finds out what is offered there; but it leads nowhere."""
    return {**_answered(str(route["name"]), error), "metadata": route["metadata"]}


_BATCH_STEPS: Final = 3
_BATCH_READ_S: Final = 150
"""A little more than billing_sink takes for the lines (`billing_sink/batches/creation.py`)."""


def _batches_route(settings: Settings) -> JsonObject:
    """To billing_sink, which is told whose request it is. One that a sink may have begun with is not asked of another."""
    grant = {
        Header.ORG: GrantField.ORG_ID,
        Header.PROJECT_ID: GrantField.PROJECT_ID,
        Header.KEY_ID: GrantField.KEY_ID,
        Header.MODE: GrantField.MODE,
    }
    return {
        "name": BATCHES_ROUTE_KEY,
        "match": {"prefix": "/"},
        "request_headers_to_add": [
            {
                "header": {"key": header, "value": f"%DYNAMIC_METADATA({Metadata.GRANT_NAMESPACE}:{field})%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for header, field in grant.items()
        ],
        # The client's key is none of its business.
        "request_headers_to_remove": list(CREDENTIAL_HEADERS),
        "route": {
            "cluster": Cluster.BILLING_SINK_BATCHES,
            # The input is read at the provider, sent there anew and begun with: each of these may take so long, and whoever is told that
            # it took too long would try again what goes on.
            "timeout": f"{_BATCH_STEPS * settings.provider_timeout_s + _BATCH_READ_S}s",
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
    }


def _kept_at(endpoint: Endpoint) -> JsonObject:
    return {} if FACTS[endpoint].keeps is None else _KEPT_AT


def _choice(route: ProviderRoute) -> dict[str, Json]:
    """What the front filter is told of how the first hop is chosen; nothing where Envoy draws it."""
    policy = route.policy
    if policy.draws:
        return {}
    told: dict[str, Json] = {RouteField.CHOICE: policy.strategy}
    if route.has_order_per_request:
        told[RouteField.MEMBERS] = _written(route.groups)
        if policy.sticky_by is not None:
            told[RouteField.STICKY_BY] = policy.sticky_by
    return told


def _written(groups: Iterable[Sequence[Hop]]) -> str:
    """Groups as the front filter reads them."""
    return ";".join(" ".join(f"{hop.cluster}={hop.weight}" for hop in group) for group in groups)


def _order_of_its_own(route: ProviderRoute) -> dict[str, Json]:
    is_overridden = route.has_order_per_request or route.chain is not None
    return {"override_metadata_namespace": Metadata.ORDER_NAMESPACE} if is_overridden else {}


def _test_route(endpoint: Endpoint, simulator_url: str, settings: Settings) -> JsonObject:
    """Where every request with a test key goes, under the model's own name. The simulator has the endpoint's own path."""
    path = urlsplit(simulator_url).path.rstrip("/") + FACTS[endpoint].path + FACTS[endpoint].query
    return {
        "name": simulator_route_key(endpoint),
        "match": {"prefix": "/"},
        "metadata": {
            "filter_metadata": {
                FRONT_FILTER: {RouteField.CLUSTER: Cluster.SIMULATOR, RouteField.PATH: path},
                upstream_filter(Cluster.SIMULATOR): {RouteField.PATH: path},
            },
        },
        "route": {
            "cluster": Cluster.SIMULATOR,
            "auto_host_rewrite": True,
            "timeout": "0s",
            # Whoever asks for a refusal gets it as it is.
            "retry_policy": _bounds(endpoint, Policy(), settings)
            | {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
            **_life(endpoint, settings),
        },
        **_kept_at(endpoint),
    }


def _priority_group(number: int, group: Sequence[Hop]) -> JsonObject:
    clusters: Json = [{"cluster_name": hop.cluster, "weight": hop.weight} for hop in group]
    return {"name": f"group-{number}", "clusters": clusters}


def _life(endpoint: Endpoint, settings: Settings) -> Mapping[str, Json]:
    """How long a session may last. It ends by nobody's silence: people think, or listen."""
    if not FACTS[endpoint].is_session:
        return {}
    life = f"{settings.session_s_max}s"
    return {"max_stream_duration": {"max_stream_duration": life}, "idle_timeout": life}


def _retry_policy(
    endpoint: Endpoint, tries: int, policy: Policy, settings: Settings, *, translated: bool, capped: bool
) -> JsonObject:
    attempts = min(tries, policy.attempts_max or ATTEMPTS_MAX)
    bounds = _bounds(endpoint, policy, settings)
    if attempts == 1:
        # Nowhere else to go: worth a second try is what certainly did not reach the provider, and what it has asked back in a moment.
        return bounds | {
            "retry_on": "connect-failure,refused-stream,retriable-headers",
            "retriable_headers": [
                {"name": _RETRY_AFTER, "string_match": {"safe_regex": {"regex": f"[0-{_WAITS_S_MAX}]"}}}
            ],
            "rate_limited_retry_back_off": {
                "reset_headers": [{"name": _RETRY_AFTER, "format": "SECONDS"}],
                "max_interval": f"{_WAITS_S_MAX + 1}s",
            },
            "num_retries": 1,
        }
    if FACTS[endpoint].is_session:
        # Nothing was sent that a provider could find wrong but what we have written: its answer is an upgrade, or the next one is asked.
        bounds["retriable_headers"] = [
            {"name": ":status", "string_match": {"exact": str(SWITCHED)}, "invert_match": True}
        ]
    else:
        headers: list[Json] = []
        if translated:
            # What cannot be put to one provider in its dialect, the next one may take as it is.
            headers.append({"name": Header.UNTRANSLATABLE, "present_match": True})
        if capped:
            # Who is full by our own limits was not asked, whichever answers of its own the client is to have.
            headers.append({"name": Header.OWN_REPLY, "string_match": {"exact": LIMITED_FLAG}})
        if headers:
            bounds["retriable_headers"] = headers
    return bounds | {
        "retry_on": RETRY_ON + (",retriable-headers" if "retriable_headers" in bounds else ""),
        "retriable_status_codes": list(RETRIABLE_STATUS if policy.retry_statuses is None else policy.retry_statuses),
        "num_retries": attempts - 1,
    }


def _bounds(endpoint: Endpoint, policy: Policy, settings: Settings) -> dict[str, Json]:
    """Of each attempt, and of the pause before it."""
    first_byte_ms = policy.first_byte_timeout_ms or settings.provider_timeout_s * 1000
    return {
        # Without it Envoy would try the first group again and again.
        "refresh_cluster_on_retry": True,
        # Up to the response headers; once a byte went out, an attempt is never repeated.
        "per_try_timeout": _seconds(first_byte_ms),
        # It runs while the headers are waited for, too: by default nobody who may still answer is given up by it.
        "per_try_idle_timeout": f"{settings.session_s_max}s"
        if FACTS[endpoint].is_session
        else _seconds(policy.idle_timeout_ms or max(settings.provider_idle_timeout_s * 1000, first_byte_ms)),
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }


def _seconds(milliseconds: int) -> str:
    """A duration as Envoy's JSON writes it."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03d}s" if rest else f"{whole}s"


def _answered(name: str, error: ApiError) -> JsonObject:
    """A route that leads nowhere. `local_replies` words its answer anew, where another form of errors is asked for."""
    return {
        "name": name,
        "match": {"prefix": "/"},
        "direct_response": {"status": error.status, "body": {"inline_string": error.body()}},
    }


def _nowhere() -> JsonObject:
    """The same to who is served nothing, but a route that the filter for pages of other origins looks at: a preflight has no other.

    No cluster has the name of a route, so that Envoy finds none.
    """
    return {
        "name": "nowhere",
        "match": {"prefix": "/"},
        "route": {"cluster_header": Header.ROUTE, "cluster_not_found_response_code": "NOT_FOUND"},
    }
