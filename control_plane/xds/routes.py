"""The route table: by endpoint and model, in one exact-match look-up, to a chain of providers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from control_plane.catalog.kinds import KindTemplate
from control_plane.catalog.model import Catalog, Deployment, Policy, Provider
from control_plane.settings import Settings
from control_plane.xds.lua import FRONT_FILTER, upstream_filter
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from control_plane.xds.replicas import route_retries
from gateway_core.contract import (
    Cluster,
    Header,
    RouteField,
    provider_cluster,
    route_key,
    session_cluster,
    simulator_route_key,
    translated_cluster,
)
from gateway_core.endpoints import FACTS, SOLD, Endpoint
from gateway_core.errors import NOT_FOUND, ApiError
from gateway_core.ids import ModelName, ProviderName
from gateway_core.offering import Offering
from gateway_core.usage import SWITCHED

ROUTE_CONFIG: Final = "gateway"

_RETRIABLE_STATUS: Final = (401, 403, 408, 409, 429, 529)
"""Besides 5xx. 401 and 403 are about our own credential there; another provider's may be good."""

_HIDDEN_RESPONSE_HEADERS: Final = (
    *("set-cookie", "openai-organization", "openai-project", "anthropic-organization-id"),
    *(Header.COST, Header.CLUSTER, Header.MAX_TOKENS, Header.CACHE, Header.UNTRANSLATABLE, Header.OWN_REPLY),
)
"""What a provider tells about our account with it, and what only we tell."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One provider of a chain, the cluster that leads to it, and what it has to be sent.

    Attributes:
        peculiarities: what its kind takes in another way than others: more parameters of its cluster's script.
    """

    provider: ProviderName
    cluster: str
    path: str
    upstream_model: str
    weight: int
    peculiarities: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderRoute:
    """An endpoint and a name, and the groups of hops that are tried in order. Equal routes have equal bytes.

    Attributes:
        name: the one that is asked for: the model's own, or an alias.
        model: the model it stands for.
    """

    endpoint: Endpoint
    name: ModelName
    model: ModelName
    groups: tuple[tuple[Hop, ...], ...]
    policy: Policy

    @property
    def key(self) -> str:
        """What the front filter writes into the routing header for it."""
        return route_key(self.endpoint, self.name)

    @property
    def is_translated(self) -> bool:
        """Whether a hop needs the translator."""
        own = (provider_cluster, session_cluster)
        return any(hop.cluster not in {of(hop.provider) for of in own} for group in self.groups for hop in group)

    @property
    def offering(self) -> Offering:
        """What a request gets that takes it."""
        return Offering(self.model, {hop.provider: hop.upstream_model for group in self.groups for hop in group})


def provider_routes(catalog: Catalog, *, translated: bool) -> Iterable[ProviderRoute]:
    """Every route to providers that a catalogue has, with the help of a translator or without."""
    for chain in catalog.chains(translated=translated):
        hops = tuple(tuple(_hop(catalog, chain.endpoint, each) for each in group) for group in chain.groups)
        yield ProviderRoute(chain.endpoint, chain.name, chain.model, hops, chain.policy)


def route_configuration(routes: Iterable[ProviderRoute], settings: Settings) -> JsonObject:
    """The RouteConfiguration resource."""
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
    if settings.simulator_url is not None:
        for endpoint in SOLD:
            actions[simulator_route_key(endpoint)] = _action(_test_route(endpoint, settings.simulator_url, settings))
    return {
        "name": ROUTE_CONFIG,
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                "response_headers_to_remove": list(_HIDDEN_RESPONSE_HEADERS),
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
                    "on_no_match": _action(_not_found(NOT_FOUND)),
                },
            }
        ],
    }


def action(route: ProviderRoute, settings: Settings) -> JsonObject:
    """What stands in the map under the route's key: a Matcher.OnMatch."""
    return _action(_provider_route(route, settings))


def has_own_cluster_for_sessions(provider: Provider) -> bool:
    """Whether sessions go by another cluster than requests, which may be of HTTP/2 wherever there is TLS."""
    return provider.tls and provider.path(Endpoint.REALTIME) is not None


def _hop(catalog: Catalog, endpoint: Endpoint, deployment: Deployment) -> Hop:
    provider = catalog.providers[deployment.provider]
    path = provider.path(endpoint)
    if path is not None:
        peculiarities = _peculiarities(provider.template) if endpoint is Endpoint.CHAT else ()
        is_apart = FACTS[endpoint].is_session and has_own_cluster_for_sessions(provider)
        return Hop(
            provider.name,
            session_cluster(provider.name) if is_apart else provider_cluster(provider.name),
            path,
            deployment.upstream_model,
            deployment.weight,
            peculiarities,
        )
    translation = provider.translation(endpoint)
    assert translation is not None  # noqa: S101 - a chain has only providers that serve its endpoint
    # What is written here is in the client's dialect still; to what is peculiar to the provider the translator keeps.
    cluster = translated_cluster(provider.name, translation.client)
    path = translation.path + translation.told
    return Hop(provider.name, cluster, path, deployment.upstream_model, deployment.weight)


def _peculiarities(template: KindTemplate) -> tuple[tuple[str, str], ...]:
    bound, refuses = template.output_bound, template.refuses_stream_options
    return (
        *([] if bound is None else [(RouteField.OUTPUT_BOUND, bound)]),
        *([(RouteField.REFUSES_STREAM_OPTIONS, "true")] if refuses else []),
    )


def _action(route: JsonObject) -> JsonObject:
    return {"action": {"name": "route", "typed_config": typed("envoy.config.route.v3.Route", **route)}}


def _provider_route(route: ProviderRoute, settings: Settings) -> JsonObject:
    told: dict[str, Json] = {RouteField.OFFERING: str(route.offering)}
    if route.policy.cache_ttl_s is not None:
        told[RouteField.CACHE_TTL_S] = route.policy.cache_ttl_s
    metadata: dict[str, Json] = {FRONT_FILTER: told}
    for group in route.groups:
        for hop in group:
            parameters: dict[str, Json] = {RouteField.PATH: hop.path, RouteField.MODEL: hop.upstream_model}
            metadata[upstream_filter(hop.cluster)] = parameters | dict(hop.peculiarities)
            if route.groups[0] == (hop,) and not hop.peculiarities:
                # The first attempt is certain, so the front filter prepares it while it has the body in hand. It prepares what
                # everybody takes.
                metadata[FRONT_FILTER] = {**told, RouteField.CLUSTER: hop.cluster, **parameters}
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
                        priority_groups=[_priority_group(number, group) for number, group in enumerate(route.groups)],
                    ),
                }
            },
            "auto_host_rewrite": True,
            # An answer may stream as long as the listener lets any request run; an attempt has bounds of its own.
            "timeout": "0s",
            "retry_policy": _retry_policy(
                route.endpoint, len(route.groups), route.policy, settings, translated=route.is_translated
            ),
            **_life(route.endpoint, settings),
        },
    }


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
            "retry_policy": _retry_policy(endpoint, 1, Policy(), settings),
            **_life(endpoint, settings),
        },
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
    endpoint: Endpoint, groups: int, policy: Policy, settings: Settings, *, translated: bool = False
) -> JsonObject:
    is_session = FACTS[endpoint].is_session
    bounds: dict[str, Json] = {
        # Without it Envoy would try the first group again and again.
        "refresh_cluster_on_retry": True,
        # Up to the response headers; once a byte went out, an attempt is never repeated.
        "per_try_timeout": _seconds(policy.first_byte_timeout_ms, settings.provider_timeout_s),
        "per_try_idle_timeout": f"{settings.session_s_max}s"
        if is_session
        else _seconds(policy.idle_timeout_ms, settings.provider_idle_timeout_s),
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    attempts = min(groups, policy.attempts_max or groups)
    if attempts == 1:
        # Nowhere else to go: only what certainly did not reach the provider is worth a second try.
        return bounds | {"retry_on": "connect-failure,refused-stream", "num_retries": 1}
    if is_session:
        # Nothing was sent that a provider could find wrong but what we have written: its answer is an upgrade, or the next one is asked.
        bounds["retriable_headers"] = [
            {"name": ":status", "string_match": {"exact": str(SWITCHED)}, "invert_match": True}
        ]
    elif translated:
        # What cannot be put to one provider in its dialect, the next one may take as it is.
        bounds["retriable_headers"] = [{"name": Header.UNTRANSLATABLE, "present_match": True}]
    return bounds | {
        "retry_on": "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-status-codes"
        + (",retriable-headers" if "retriable_headers" in bounds else ""),
        "retriable_status_codes": list(_RETRIABLE_STATUS if policy.retry_statuses is None else policy.retry_statuses),
        "num_retries": attempts - 1,
    }


def _seconds(milliseconds: int | None, default_s: int) -> str:
    """A duration as Envoy's JSON writes it."""
    if milliseconds is None:
        return f"{default_s}s"
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03d}s" if rest else f"{whole}s"


def _not_found(error: ApiError) -> JsonObject:
    return {
        "name": "not_found",
        "match": {"prefix": "/"},
        "direct_response": {"status": error.status, "body": {"inline_string": error.body()}},
    }
