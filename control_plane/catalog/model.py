"""The catalogue as values: what the gateway can reach, in which order, under which names. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from control_plane.catalog.aws_keys import AwsKey
from control_plane.catalog.kinds import TEMPLATES, KindTemplate
from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from control_plane.catalog.strategies import ORDERED, StickyBy, Strategy
from gateway_core.endpoints import FACTS, SOLD_UNLESS_TOLD, Endpoint
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.providers import PATHS_BY_KIND, TRANSLATIONS_BY_KIND, ProviderKind, Translation, served

_HOST: Final = re.compile(r"[0-9A-Za-z._:-]+")


class InvalidBaseUrlError(ValueError):
    """A base URL without a host, with a port there is not, or of another scheme than http and https."""


class MissingCredentialError(ValueError):
    """A provider without what its kind cannot be asked without."""


def check_base_url(url: str) -> None:
    """Refuse what could not be dialled.

    Raises:
        InvalidBaseUrlError: it is none. The message does not quote it.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidBaseUrlError("the URL is not one")


def is_moved(before: str, after: str) -> bool:
    """Whether two base URLs lead to different places: another scheme, host or port."""
    return urlsplit(before)[:2] != urlsplit(after)[:2]


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider and the credential we use with it.

    Attributes:
        region: of a provider whose requests are signed.
        headers: sent with every request, whatever the client sent under these names.
        connect_timeout_ms: None for Envoy's default here, 5 s.
        connections_max, requests_max: how many it may have at once from each Envoy; None for no bound of its own.
        is_limited_by_minute: whether ext_authz counts what it is asked in a minute.
        own_keys_allowed: whether organisations may have keys of their own there.
        probed: whether it is asked for its models now and then, to see whether it is there.
    """

    name: ProviderName
    kind: ProviderKind
    base_url: str
    credential: SecretStr | None
    region: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_ms: int | None = None
    connections_max: int | None = None
    requests_max: int | None = None
    is_limited_by_minute: bool = False
    own_keys_allowed: bool = False
    probed: bool = True

    @property
    def template(self) -> KindTemplate:
        """What its kind has in common."""
        return TEMPLATES[self.kind]

    @property
    def aws_key(self) -> AwsKey | None:
        """What its requests are signed with, if they are.

        Raises:
            InvalidAwsKeyError: its credential is none of its kind.
        """
        if self.credential is None or self.template.signing_service is None:
            return None
        return AwsKey.find(self.credential)

    def check_credential(self) -> None:
        """Refuse what its kind cannot be asked with.

        Raises:
            InvalidAwsKeyError, MissingCredentialError: it has none of its kind.
        """
        if self.credential is None and self.template.requires_credential:
            raise MissingCredentialError("a provider of this kind needs a credential")
        if self.aws_key is not None and self.region is None:
            raise MissingCredentialError("a provider of this kind needs a region")

    @property
    def is_capped(self) -> bool:
        """Whether it may be full, so that an attempt has to be able to go elsewhere before it has begun."""
        return self.requests_max is not None or self.is_limited_by_minute

    @property
    def tls(self) -> bool:
        """Whether it is reached over TLS."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        """Port, the scheme's own when the URL names none."""
        return urlsplit(self.base_url).port or (443 if self.tls else 80)

    def path(self, endpoint: Endpoint) -> str | None:
        """The path of an endpoint at this provider, or None if it does not serve it.

        The model's name is to be put in the place of `{model}`, if it has that.
        """
        suffix = PATHS_BY_KIND[self.kind].get(endpoint)
        return None if suffix is None else self._behind_base(suffix) + FACTS[endpoint].query

    def translation(self, endpoint: Endpoint) -> Translation | None:
        """How the translator makes it serve an endpoint, on a path of the provider; None where it needs none or cannot."""
        found = TRANSLATIONS_BY_KIND[self.kind].get(endpoint)
        return None if found is None else replace(found, path=self._behind_base(found.path))

    def _behind_base(self, suffix: str) -> str:
        return urlsplit(self.base_url).path.rstrip("/") + suffix


@dataclass(frozen=True, slots=True)
class Policy:
    """How a route tries its providers. None: what the settings say, and one attempt per group.

    Attributes:
        attempts_max: groups beyond this one are not tried.
        retry_statuses: statuses besides 5xx that are worth the next group; None for the gateway's own list.
        first_byte_timeout_ms: how long one attempt may take to the headers of its answer.
        idle_timeout_ms: how long an answer may pause.
        cache_ttl_s: how long answers are cached that would be the same each time; 0 for never. None: only those that a client asks for.
    """

    attempts_max: int | None = None
    retry_statuses: tuple[int, ...] | None = None
    first_byte_timeout_ms: int | None = None
    idle_timeout_ms: int | None = None
    cache_ttl_s: int | None = None
    strategy: Strategy = Strategy.WEIGHTED
    sticky_by: StickyBy | None = None

    @property
    def draws(self) -> bool:
        """Whether Envoy draws one of a group by weight, and goes on to the next group when that fails. Else all of a group are tried."""
        return self.strategy is Strategy.WEIGHTED and self.sticky_by is None

    @property
    def has_order_per_request(self) -> bool:
        """Whether each request may try the members of a group in an order of its own."""
        return not self.draws and self.strategy is not Strategy.LOWEST_COST


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model at a provider, under the provider's own name for it, and where its route puts it.

    Attributes:
        priority: groups of one priority are tried in ascending order.
        weight: the share within its group.
        figure: what its route goes by, the less the better: nano-USD of a nominal request, or milliseconds to the first byte. None where
            it goes by neither, or nobody knows.
    """

    model: ModelName
    provider: ProviderName
    upstream_model: str
    priority: int
    weight: int
    figure: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model under its public name, and what its route says of it.

    Attributes:
        created: seconds since 1970, as OpenAI lists it.
        aliases: other names that mean the same.
        orgs_allowed: organisations that may see it; none means all.
        endpoints: on which it is sold.
    """

    name: ModelName
    owned_by: str
    created: int
    aliases: tuple[ModelName, ...] = ()
    policy: Policy = Policy()
    orgs_allowed: tuple[OrgId, ...] = ()
    endpoints: tuple[Endpoint, ...] = SOLD_UNLESS_TOLD

    def is_visible_to(self, org_id: OrgId) -> bool:
        """Whether an organisation may know of it."""
        return not self.orgs_allowed or org_id in self.orgs_allowed


@dataclass(frozen=True, slots=True)
class Chain:
    """How a name, a model's or an alias, is served on an endpoint: groups in the order they are tried, none empty.

    Within a group, members stand in the order of a strategy that has one, the heaviest first where their figures do not tell them apart.
    There are no groups where every provider that could serve it is paused.
    """

    endpoint: Endpoint
    name: ModelName
    model: ModelName
    groups: tuple[tuple[Deployment, ...], ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class OwnKey:
    """An organisation and a provider, which is asked with the organisation's credential for it."""

    org_id: OrgId
    provider: Provider


@dataclass(frozen=True, slots=True)
class Catalog:
    """One consistent reading of what can be served. A deployment in it has a route and a price.

    Attributes:
        own_keys_as_of: the revision at which there last came to be other keys of organisations; 0 if there never were any.
        states: of providers, or models at them, that are out.
    """

    revision: int
    providers: Mapping[ProviderName, Provider]
    models: Mapping[ModelName, Model]
    deployments: tuple[Deployment, ...]
    own_keys: tuple[OwnKey, ...] = ()
    own_keys_as_of: int = 0
    states: Mapping[Subject, ProviderState] = field(default_factory=dict)

    def chains(self, *, translated: bool = False) -> Iterable[Chain]:
        """A chain for each endpoint and each name that can be served, with the help of a translator or without.

        A deployment whose provider does not serve the endpoint is left out of that chain, and one that is out as long as any other is
        left. Where none would be, all that are not paused stay: they may be well again, and the client is no worse off.
        """
        by_model = sorted(self.deployments, key=lambda d: d.model)
        for name, deployments in groupby(by_model, key=lambda d: d.model):
            yield from self._chains_of(self.models[name], tuple(deployments), translated=translated)

    def chain(self, endpoint: Endpoint, name: ModelName, *, translated: bool) -> Chain | None:
        """The one of them for a name, a model's own or an alias."""
        model = next((each for each in self.models.values() if name in {each.name, *each.aliases}), None)
        if model is None:
            return None
        deployments = [each for each in self.deployments if each.model == model.name]
        chains = self._chains_of(model, deployments, translated=translated)
        return next((each for each in chains if (each.endpoint, each.name) == (endpoint, name)), None)

    def offered_to(self, org_id: OrgId) -> list[Model]:
        """The models that can be served and that an organisation may know of, by name."""
        servable = {deployment.model for deployment in self.deployments}
        offered = (each for each in self.models.values() if each.name in servable and each.is_visible_to(org_id))
        return sorted(offered, key=lambda model: model.name)

    def is_paused(self, provider: ProviderName) -> bool:
        """Whether an operator wants it to get no requests at all."""
        state = self.states.get(Subject(provider))
        return state is not None and state.condition is Condition.PAUSED

    def keeping_out(self, provider: ProviderName, upstream_model: str) -> ProviderState | None:
        """The state in which a deployment is left out if it can be; None if it is not."""
        subject = Subject(provider, upstream_model)
        found = (self.states.get(each) for each in (subject.whole, subject))
        return next((state for state in found if state is not None and state.is_out), None)

    def _chains_of(self, model: Model, deployments: Iterable[Deployment], *, translated: bool) -> Iterable[Chain]:
        members = sorted(deployments, key=lambda d: (d.priority, d.provider))
        if model.policy.strategy in ORDERED:
            members.sort(key=_by_figure)
        for endpoint in model.endpoints:
            able = [d for d in members if served(self.providers[d.provider].kind, (endpoint,), translated=translated)]
            willing = [d for d in able if not self.is_paused(d.provider)]
            fit = [d for d in willing if self.keeping_out(d.provider, d.upstream_model) is None]
            groups = tuple(tuple(group) for _, group in groupby(fit or willing, key=lambda d: d.priority))
            if able:
                for each in (model.name, *model.aliases):
                    yield Chain(endpoint, each, model.name, groups, model.policy)


def _by_figure(deployment: Deployment) -> tuple[int, bool, int, int, str]:
    """What nobody knows anything of comes last in its group."""
    figure = deployment.figure
    return deployment.priority, figure is None, figure or 0, -deployment.weight, deployment.provider
