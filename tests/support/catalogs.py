"""Catalogues for tests: written in YAML, drawn at random, or put together by hand; and settings to translate them with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr

from control_plane.catalog.model import Catalog, Deployment, Model, OwnKey, Policy, Provider
from control_plane.catalog.strategies import StickyBy, Strategy
from control_plane.settings import Settings
from gateway_core.contract import Peer
from gateway_core.endpoints import SOLD_UNLESS_TOLD, Endpoint
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.networks import Network
from gateway_core.providers import ProviderKind
from gateway_core.settings import HostPort
from tests.support.planes import Certificates


def settings(
    *,
    spool_dir: str = "/var/lib/tollgate/spool",
    simulator_url: str | None = "http://127.0.0.1:8090",
    certificates: Path = Path("/nonexistent"),
    trusted_proxies: tuple[Network, ...] = (),
    translator_endpoints: tuple[HostPort, ...] = (),
    response_cache_endpoints: tuple[HostPort, ...] = (),
    cors_origins: tuple[str, ...] = (),
) -> Settings:
    """The defaults and a simulator, with secrets that open nothing and no look at the environment's own."""
    tls = Certificates(certificates).of(Peer.CONTROL_PLANE)
    return Settings(
        postgres_dsn=SecretStr("postgresql://unused"),
        api_key_pepper=SecretStr("pepper"),
        credential_key=SecretStr("unused"),
        xds_tls_certificate=tls.certificate,
        xds_tls_key=tls.key,
        xds_tls_ca=tls.ca,
        spool_dir=spool_dir,
        simulator_url=simulator_url,
        trusted_proxies=trusted_proxies,
        translator_endpoints=translator_endpoints,
        response_cache_endpoints=response_cache_endpoints,
        cors_origins=cors_origins,
    )


def provider(
    name: str,
    kind: ProviderKind = ProviderKind.OPENAI,
    base_url: str = "http://127.0.0.1:9000/v1",
    credential: str | None = None,
    region: str | None = None,
) -> Provider:
    """A provider, without a credential unless one is given."""
    secret = None if credential is None else SecretStr(credential)
    return Provider(ProviderName(name), kind, base_url, secret, region)


def deployment(
    model: str,
    provider: str,
    *,
    upstream_model: str | None = None,
    priority: int = 0,
    weight: int = 1,
    figure: int | None = None,
) -> Deployment:
    """A deployment, under the model's own name unless another is given."""
    return Deployment(ModelName(model), ProviderName(provider), upstream_model or model, priority, weight, figure)


def catalog(
    providers: Sequence[Provider],
    deployments: Sequence[Deployment] = (),
    *,
    revision: int = 1,
    policies: Mapping[str, Policy] | None = None,
) -> Catalog:
    """A catalogue with a model for every name that is deployed; `policies` by model."""
    models = {
        d.model: Model(d.model, "test", 1_700_000_000, policy=(policies or {}).get(d.model, Policy()))
        for d in deployments
    }
    return Catalog(revision, {p.name: p for p in providers}, models, tuple(deployments))


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _WrittenProvider(_Written):
    name: str
    kind: ProviderKind
    base_url: str
    region: str | None = None
    credential: str | None = None
    own_keys_allowed: bool = False
    headers: dict[str, str] = {}


class _WrittenModel(_Written):
    name: str
    owned_by: str
    created: int
    endpoints: tuple[Endpoint, ...] = SOLD_UNLESS_TOLD
    cache_ttl_s: int | None = None
    strategy: Strategy = Strategy.WEIGHTED
    sticky_by: StickyBy | None = None


class _WrittenDeployment(_Written):
    model: str
    provider: str
    upstream_model: str
    priority: int = 0
    weight: int = 1
    figure: int | None = None


class _WrittenOwnKey(_Written):
    org_id: str
    provider: str
    credential: str


class _WrittenCatalog(_Written):
    providers: list[_WrittenProvider]
    models: list[_WrittenModel]
    deployments: list[_WrittenDeployment]
    own_keys: list[_WrittenOwnKey] = []


def read_catalog(written: Mapping[str, object]) -> Catalog:
    """A catalogue from the lists of an `in.yaml`; a misspelt field is an error."""
    parsed = _WrittenCatalog.model_validate(written)
    providers = {
        p.name: replace(
            provider(p.name, p.kind, p.base_url, p.credential, p.region),
            own_keys_allowed=p.own_keys_allowed,
            headers=p.headers,
        )
        for p in parsed.providers
    }
    return Catalog(
        revision=1,
        providers={ProviderName(name): found for name, found in providers.items()},
        models={
            ModelName(m.name): Model(
                *(ModelName(m.name), m.owned_by, m.created),
                endpoints=m.endpoints,
                policy=Policy(strategy=m.strategy, sticky_by=m.sticky_by, cache_ttl_s=m.cache_ttl_s),
            )
            for m in parsed.models
        },
        deployments=tuple(
            deployment(
                *(d.model, d.provider),
                upstream_model=d.upstream_model,
                priority=d.priority,
                weight=d.weight,
                figure=d.figure,
            )
            for d in parsed.deployments
        ),
        own_keys=tuple(
            OwnKey(OrgId(key.org_id), replace(providers[key.provider], credential=SecretStr(key.credential)))
            for key in parsed.own_keys
        ),
        own_keys_as_of=len(parsed.own_keys),
    )


_NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
_MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,30}", fullmatch=True)
# Marked, so that a look for one in any text finds it and nothing else.
_CREDENTIALS = st.from_regex(r"CREDENTIAL-[A-Za-z0-9+/\"\\]{1,30}", fullmatch=True)
_BASE_URLS = st.sampled_from(
    ["https://api.example.com/v1", "https://api.example.com:8443", "http://127.0.0.1:9000/v1/", "http://backend"]
)


_MILLISECONDS = st.none() | st.integers(1, 600_000)
_POLICIES = st.just(Policy()) | st.builds(
    Policy,
    attempts_max=st.none() | st.integers(1, 16),
    retry_statuses=st.none() | st.lists(st.integers(400, 599), max_size=4, unique=True).map(tuple),
    first_byte_timeout_ms=_MILLISECONDS,
    idle_timeout_ms=_MILLISECONDS,
    cache_ttl_s=st.none() | st.integers(0, 3600),
    strategy=st.sampled_from(Strategy),
    sticky_by=st.none() | st.sampled_from(StickyBy),
)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Any catalogue the schema allows: names, aliases, chains, weights and policies at random, some models served nowhere."""
    providers = draw(
        st.lists(
            st.builds(provider, _NAMES, st.sampled_from(ProviderKind), _BASE_URLS, credential=st.none() | _CREDENTIALS),
            min_size=1,
            max_size=4,
            unique_by=lambda p: p.name,
        )
    )
    deployments = draw(
        st.lists(
            st.builds(
                deployment,
                _MODELS,
                st.sampled_from([p.name for p in providers]),
                upstream_model=_MODELS,
                priority=st.integers(0, 15),
                weight=st.integers(1, 1000),
                figure=st.none() | st.integers(0, 2**40),
            ),
            max_size=6,
            unique_by=lambda d: (d.model, d.provider),
        )
    )
    made = catalog(providers, deployments, revision=draw(st.integers(0, 2**40)))
    # A name means one model, be it its own or an alias.
    free = draw(st.lists(_MODELS.filter(lambda name: name not in made.models), max_size=4, unique=True))
    models = {}
    for name, model in made.models.items():
        aliases = [ModelName(free.pop()) for _ in range(draw(st.integers(0, min(2, len(free)))))]
        models[name] = replace(model, aliases=tuple(aliases), policy=draw(_POLICIES))
    return replace(made, models=models)
