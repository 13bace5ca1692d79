"""What operators say of providers, models, deployments and routes: bodies of the API and parts of the catalogue's file.

What a value means is the same in both. Pure: what needs a look at the rest of the catalogue is checked when it is written.
"""

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from control_plane.catalog.aws_keys import AwsKey
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.percentages import Share
from control_plane.catalog.strategies import ORDERED, StickyBy, Strategy
from control_plane.fields import STARS_MAX, Body, Count, Moment, PartFault, refuse_parts
from gateway_core.contract import CREDENTIAL_HEADERS, REQUEST_S_MAX, Header
from gateway_core.endpoints import SOLD, SOLD_UNLESS_TOLD, Endpoint
from gateway_core.providers import ProviderKind

PROVIDER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,199}")
ROUTE_NAME: Final = MODEL_NAME
_MATCH: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._/:@*-]{0,199}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1000}")
_CREDENTIAL: Final = re.compile(r"[\x21-\x7e]{1,8192}")
_REGION: Final = re.compile(r"[a-z]{2}[a-z0-9-]{1,38}")
_CAPABILITY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

GROUPS_MAX: Final = 16
MEMBERS_MAX: Final = 16
_MS_MAX: Final = REQUEST_S_MAX * 1000
CACHE_TTL_S_MAX: Final = 30 * 86_400

_OURS: Final = frozenset(
    {
        *(
            "host",
            "content-length",
            "content-type",
            "transfer-encoding",
            "connection",
            "accept-encoding",
            "upgrade",
            "te",
        ),
        *("expect", "trailer"),
    }
)


def _matching(pattern: re.Pattern[str], said: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(said)
        return text

    return AfterValidator(check)


def _credential(value: SecretStr) -> SecretStr:
    if not _CREDENTIAL.fullmatch(value.get_secret_value()):
        raise ValueError("must be 1 to 8192 printable characters without spaces")
    return value


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        lowered = name.lower()
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("a header that HTTP does not know")
        if lowered in CREDENTIAL_HEADERS:
            raise ValueError("a credential belongs into the field 'credential': headers are shown")
        if lowered in _OURS or lowered.startswith((Header.INTERNAL_PREFIX, "x-envoy-", ":")):
            raise ValueError("a header that the gateway sets itself")
    if len({name.lower() for name in headers}) != len(headers):
        raise ValueError("the same header twice")
    return headers


def _stars(text: str) -> str:
    if text.count("*") > STARS_MAX:
        raise ValueError(f"more than {STARS_MAX} stars")
    return text


def _in_order(endpoints: list[Endpoint]) -> list[Endpoint]:
    if len(set(endpoints)) != len(endpoints):
        raise ValueError("the same endpoint twice")
    return [each for each in SOLD if each in endpoints]


def _is_sold(endpoint: Endpoint) -> Endpoint:
    if endpoint not in SOLD:
        raise ValueError("no model is sold there")
    return endpoint


SoldEndpoint = Annotated[
    Endpoint, AfterValidator(_is_sold), WithJsonSchema({"type": "string", "enum": [each.value for each in SOLD]})
]
ProviderNameText = Annotated[
    str, _matching(PROVIDER_NAME, "lower-case letters, digits and hyphens, at most 63"), Field(examples=["openai"])
]
ModelNameText = Annotated[
    str, _matching(MODEL_NAME, "letters, digits and . _ / : @ -, at most 200"), Field(examples=["gpt-4o-mini"])
]
RouteNameText = Annotated[str, _matching(ROUTE_NAME, "letters, digits and . _ / : @ -, at most 200")]
RouteMatch = Annotated[
    str,
    _matching(_MATCH, "a model's name, or a pattern of letters, digits, . _ / : @ - and *"),
    AfterValidator(_stars),
]
Tokens = Annotated[int, Field(ge=1, le=2_000_000_000)]
Milliseconds = Annotated[int, Field(ge=1, le=_MS_MAX)]
Many = Annotated[int, Field(ge=1, le=1_000_000)]
RetryStatus = Annotated[int, Field(ge=400, le=499)]


BaseUrl = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    Field(
        description="What stands before the path of an endpoint; with scheme and host, and often ending in /v1.",
        examples=["https://api.openai.com/v1"],
    ),
]


class OwnKeys(StrEnum):
    """Whether organisations may have keys of their own at a provider."""

    ALLOWED = "allowed"
    REFUSED = "refused"


CredentialText = Annotated[SecretStr, AfterValidator(_credential)]


class ProviderSpec(Body):
    """A provider."""

    kind: ProviderKind = Field(description="Whose API it speaks.")
    base_url: BaseUrl
    region: Annotated[str, _matching(_REGION, "an AWS region, such as eu-central-1")] | None = Field(
        default=None,
        validate_default=True,
        description="Of AWS, such as eu-central-1, for kinds whose requests are signed: required there, and refused elsewhere.",
    )
    credential: CredentialText | None = Field(
        default=None,
        description="Never shown again. Left out, it stays as it is; null removes it. For AWS it is a Bedrock API key or an access "
        "key: its id, the secret and, if it is a temporary one, the session token, with colons between.",
    )
    headers: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_headers)] = Field(
        default={},
        description="Sent with every request. They are shown: no secrets.",
        examples=[{"x-team": "search"}],
    )
    connect_timeout_ms: Annotated[int, Field(ge=1, le=60_000)] | None = None
    connections_max: Many | None = Field(default=None, description="At once, from each Envoy.")
    requests_max: Many | None = Field(default=None, description="At once, from each Envoy.")
    requests_per_minute_max: Count | None = Field(
        default=None,
        description="With our own credential, from all Envoys together. One more goes to the next provider of its route.",
    )
    tokens_per_minute_max: Count | None = Field(default=None, description="The same of tokens, read and written.")
    probed: bool = Field(
        default=True,
        description="Whether it is asked for the list of its models now and then, while nobody else asks it for anything or it is down.",
    )
    own_keys: OwnKeys = Field(
        default=OwnKeys.REFUSED,
        description="Whether organisations may have keys of their own there. Those they have are removed when they are refused, and "
        "when the provider moves to another address or becomes one of another kind.",
    )
    own_key_fee_percent: Share = Field(
        default="0",
        description="What is charged of a request that is sent with its organisation's own key, as a share of the list price.",
    )

    @field_validator("region")
    @classmethod
    def _region_of_what_is_signed(cls, region: str | None, info: ValidationInfo[object]) -> str | None:
        if "kind" in info.data and (region is None) != (TEMPLATES[info.data["kind"]].signing_service is None):
            raise ValueError("required for this kind" if region is None else "this kind has none")
        return region

    @field_validator("credential")
    @classmethod
    def _key_of_what_is_signed(cls, credential: SecretStr | None, info: ValidationInfo[object]) -> SecretStr | None:
        if credential is not None and "kind" in info.data and TEMPLATES[info.data["kind"]].signing_service is not None:
            AwsKey.find(credential)
        return credential


class OwnKeySpec(Body):
    """An organisation's own key for a provider."""

    credential: CredentialText | None = Field(
        default=None,
        description="Never shown again. Left out, it stays as it is. In the form that the provider's kind takes.",
    )
    fallback: bool = Field(
        default=False,
        description="Whether a request that fails with this key goes on to the gateway's own, which is charged as if there were no "
        "own key. Without it the next provider of the route is tried.",
    )


def without_credential(spec: ProviderSpec) -> ProviderSpec:
    """The same, but it leaves the credential as it is."""
    fields = dict(spec) | {"credential": None}
    return ProviderSpec.model_construct(_fields_set=spec.model_fields_set - {"credential"}, **fields)


class ModelSpec(Body):
    """A model."""

    owned_by: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[ -~]+$")] = Field(
        description="Whose model it is, as lists of models show it.", examples=["openai"]
    )
    context_tokens: Tokens = Field(description="Input and output together; more is never held for.", examples=[128_000])
    max_output_tokens: Tokens = Field(description="Of one answer, or of one picture.", examples=[16_384])
    endpoints: Annotated[list[SoldEndpoint], AfterValidator(_in_order)] = Field(
        default=list(SOLD_UNLESS_TOLD),
        min_length=1,
        description="On which it is sold, as far as its providers have them. Each has to have a price; docs/ENDPOINTS.md says of what.",
        examples=[["chat", "responses"]],
    )
    aliases: list[ModelNameText] = Field(
        default=[], max_length=50, description="Other names that mean the same.", examples=[["gpt-mini"]]
    )
    capabilities: list[Annotated[str, _matching(_CAPABILITY, "lower-case letters, digits, - and _")]] = Field(
        default=[],
        max_length=50,
        description="For those who read the catalogue; nothing decides by them.",
        examples=[["tools", "vision"]],
    )
    requests_per_minute_max: Count | None = Field(
        default=None, description="Of all organisations together, in any minute."
    )
    tokens_per_minute_max: Count | None = Field(default=None, description="The same of tokens, read and written.")
    concurrency_max: Count | None = Field(default=None, description="The same of requests at once.")
    deprecated_at: Moment | None = None
    replacement: ModelNameText | None = Field(default=None, description="What to use once it is gone.")


class ModelChange(ModelSpec):
    """A model, by itself: what is wrong with it alone is told when it is read."""

    @field_validator("aliases")
    @classmethod
    def _name_each_once(cls, aliases: list[str]) -> list[str]:
        seen: set[str] = set()
        faults = []
        for number, alias in enumerate(aliases):
            if alias in seen:
                faults.append(PartFault((number,), "has a meaning already"))
            seen.add(alias)
        refuse_parts(faults)
        return aliases


class DeploymentSpec(Body):
    """A model at a provider."""

    upstream_model: ModelNameText = Field(description="The provider's own name for the model.")


class GroupMember(Body):
    """One provider of a group."""

    provider: ProviderNameText
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Its share among the group.")


Group = Annotated[list[GroupMember], Field(min_length=1, max_length=MEMBERS_MAX)]


class RouteSpec(Body):
    """How a model, or every model of a pattern, is served."""

    match: RouteMatch = Field(
        description="A model's name, or a pattern in which * stands for any characters. A name wins over patterns, a longer "
        "pattern over a shorter one.",
        examples=["gpt-4o-mini"],
    )
    groups: list[Group] = Field(
        min_length=1,
        max_length=GROUPS_MAX,
        description="Tried in this order; among the members of a group the strategy chooses.",
        examples=[[[{"provider": "openai", "weight": 3}, {"provider": "azure"}], [{"provider": "openrouter"}]]],
    )
    published: bool = Field(default=True, description="Only a published route serves; all it names must have a price.")
    orgs_allowed: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(
        default=[], max_length=1000, description="Organisations that may know of its models; none means all."
    )
    attempts_max: Annotated[int, Field(ge=1, le=GROUPS_MAX)] | None = Field(
        default=None,
        description="Groups beyond this one are not tried; no more providers, where a group is tried whole.",
    )
    retry_statuses: list[RetryStatus] | None = Field(
        default=None, max_length=50, description="Besides 5xx: what is worth the next group.", examples=[[408, 429]]
    )
    first_byte_timeout_ms: Milliseconds | None = None
    idle_timeout_ms: Milliseconds | None = None
    cache_ttl_s: Annotated[int, Field(ge=0, le=CACHE_TTL_S_MAX)] | None = Field(
        default=None,
        description="How long answers are cached to requests that are answered alike each time, and told again free of charge. 0: never; "
        "null: only where a client asks for it.",
    )
    strategy: Strategy = Field(
        default=Strategy.WEIGHTED,
        description="Which member of a group is tried first: drawn by weight, in turn by weight, the cheapest, or the fastest. But for "
        "`weighted` without `sticky_by`, the other members of the group are tried before the next group. docs/ROUTING.md compares them.",
    )
    sticky_by: StickyBy | None = Field(
        default=None,
        description="Requests with the same value there go to the same member of a group; others go by the strategy.",
    )

    @field_validator("sticky_by")
    @classmethod
    def _sticky_beside_what_is_shared(cls, sticky_by: StickyBy | None, info: ValidationInfo[object]) -> StickyBy | None:
        if sticky_by is not None and info.data.get("strategy") in ORDERED:
            raise ValueError(
                "stands beside weighted and round_robin only: the others prefer one provider for everybody"
            )
        return sticky_by


class RouteChange(RouteSpec):
    """A route, by itself: what is wrong with it alone is told when it is read."""

    @field_validator("groups")
    @classmethod
    def _name_each_once(cls, groups: list[Group]) -> list[Group]:
        seen: set[str] = set()
        faults = []
        for priority, group in enumerate(groups):
            for place, member in enumerate(group):
                if member.provider in seen:
                    faults.append(PartFault((priority, place, "provider"), "stands in the route twice"))
                seen.add(member.provider)
        refuse_parts(faults)
        return groups
