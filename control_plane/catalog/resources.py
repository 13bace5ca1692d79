"""What the API shows of the catalogue. Pure; no credential is in any of it."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from control_plane.catalog.price_specs import MeterPrice, PriceOverride
from control_plane.catalog.provider_state import Condition
from control_plane.catalog.specs import Group, OwnKeys, SoldEndpoint
from control_plane.catalog.strategies import StickyBy, Strategy
from control_plane.resource import Resource, Revised
from gateway_core.providers import ProviderKind


class OperationState(StrEnum):
    """What has become of a change."""

    PENDING = "pending"
    APPLIED = "applied"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class Operation(Revised):
    """A change of the catalogue on its way into every Envoy. Its revision is the ETag of what it changed."""

    id: str
    state: OperationState = Field(
        description="applied: every connected Envoy that answers has accepted it, and every running process of ext_authz serves it. rolled_back: one refused it, and it was undone. "
        "rejected: one refused it, and it could not be undone because others had changed the same since."
    )
    action: str
    target: str
    nodes: int | None = Field(description="How many Envoys had accepted it when it was applied.")
    authorizers: int | None = Field(description="How many processes of ext_authz served it when it was applied.")
    waiting_for: list[str] = Field(
        description="While it is pending: the Envoys and the processes of ext_authz that it has not reached, by id."
    )
    error: str | None = Field(description="Why it was refused, in the words of who refused it.")
    undone_by: int | None = Field(description="The revision that put back what was before.")
    created_at: datetime
    finished_at: datetime | None


class Provider(Revised):
    """A provider, without its credential."""

    name: str
    kind: ProviderKind
    base_url: str
    region: str | None
    has_credential: bool
    headers: dict[str, str]
    connect_timeout_ms: int | None
    connections_max: int | None
    requests_max: int | None
    requests_per_minute_max: int | None
    tokens_per_minute_max: int | None
    probed: bool
    own_keys: OwnKeys
    own_key_fee_percent: str


class ListedProvider(Provider):
    """A provider, and whether it gets requests now."""

    state: Condition


class OwnKey(Revised):
    """An organisation's own key for a provider, without the credential."""

    provider: str
    hint: str = Field(description="How the credential ends.", examples=["...a1b2"])
    fallback: bool
    state: OperationState = Field(description="applied: requests are sent with it.")
    changed_at: datetime


class Model(Revised):
    """A model under its public name."""

    name: str
    owned_by: str
    context_tokens: int
    max_output_tokens: int
    endpoints: list[SoldEndpoint]
    aliases: list[str]
    capabilities: list[str]
    requests_per_minute_max: int | None
    tokens_per_minute_max: int | None
    concurrency_max: int | None
    deprecated_at: datetime | None
    replacement: str | None
    created_at: datetime


class Deployment(Revised):
    """A model at a provider."""

    model: str
    provider: str
    upstream_model: str


class Route(Revised):
    """How a model, or every model of a pattern, is served."""

    name: str
    match: str
    groups: list[Group]
    published: bool
    orgs_allowed: list[str]
    attempts_max: int | None
    retry_statuses: list[int] | None
    first_byte_timeout_ms: int | None
    idle_timeout_ms: int | None
    cache_ttl_s: int | None
    strategy: Strategy
    sticky_by: StickyBy | None


class Rejection(Resource):
    """What a node refused, in its own words."""

    version: str
    message: str
    at: datetime


class NodeType(Resource):
    """One type of resources at one node."""

    accepted_version: str | None
    accepted_at: datetime | None
    rejection: Rejection | None


class Node(Resource):
    """One connected Envoy."""

    id: str
    control_plane: str = Field(description="The instance it is connected to.")
    connected_at: datetime
    accepted_revision: int = Field(description="The newest revision that it has accepted whole.")
    refused_revision: int | None
    refusal: str | None
    silent: bool = Field(
        description="It has not answered what it was sent for some seconds, and no change waits for it until it does."
    )
    types: dict[str, NodeType]


class CatalogReader(Resource):
    """A running process of ext_authz."""

    id: str
    started_at: datetime
    heard_at: datetime
    catalog_revision: int = Field(description="By which it decides requests; 0 while it starts.")
    lags: bool = Field(description="Whether there is a newer one.")


class Price(Resource):
    """A price version of a deployment. It never changes; a newer one takes its place."""

    model: str
    provider: str
    version: int = Field(
        description="The revision it is in force from: requests admitted since then are charged by it."
    )
    effective_from: datetime
    free: bool
    prices: list[MeterPrice]


class ScheduledPrice(Resource):
    """A price version that is not yet due."""

    id: str
    state: Literal["scheduled"] = "scheduled"
    model: str
    provider: str
    effective_from: datetime = Field(description="It is in force within a second after this.")
    free: bool
    prices: list[MeterPrice]
    created_at: datetime


class Terms(Revised):
    """What an organisation pays in the place of list prices."""

    org_id: str
    markup_percent: str
    overrides: list[PriceOverride]
