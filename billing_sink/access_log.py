"""A spool line as a value. The edge: behind it nothing is JSON any more."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, Json, PlainValidator, StringConstraints, TypeAdapter, ValidationError

from billing_sink.unfinished import Unfinished
from gateway_core.clusters import Cluster, provider_of_cluster
from gateway_core.contract import CacheOutcome
from gateway_core.endpoints import Endpoint
from gateway_core.ids import KeyId, ModelName, OrgId, PriceVersion, ProjectId, ProviderName, RequestId
from gateway_core.kept import KeptName
from gateway_core.mode import Mode
from gateway_core.offering import Offering
from gateway_core.usage import SWITCHED


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")


Text = Annotated[str, AfterValidator(_storable)]
"""Postgres cannot store a NUL. It is replaced and never refused: what a client or provider writes decides about no charge."""
Id = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**62)]
SmallCount = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""What the ledger keeps as an integer. A line it had no room for would be retried for ever; so it is refused here."""

FINISHED: Final = "DownstreamEnd"
PERIODIC: Final = "DownstreamPeriodic"
ATTEMPT: Final = "UpstreamEnd"

_NO_FLAGS: Final = "-"
"""As Envoy writes it."""
_NO_ATTEMPT_LEFT: Final = "URX"
_ERROR_FROM: Final = 400

_OF_AN_ATTEMPT: Final = f'"type":"{ATTEMPT}"'.encode()
"""As Envoy writes it. No text that a client has chosen can hold it: its quotation marks would be escaped."""


def _only_name(text: str) -> KeptName | None:
    """What a request names that a provider keeps, where it is one thing: then the path names it."""
    return None if "," in text else KeptName.parse(text)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the front filter read from the request; see `gateway_core.contract.RequestField`."""

    endpoint: Endpoint | None = None
    model: ModelName | None = None
    stream: bool = False
    body_bytes: Count = 0
    max_output_tokens: Count | None = None
    choices: Count | None = None
    files: Count = 0
    file_bytes: Count = 0
    units: Count | None = None
    client_request_id: Annotated[Text, StringConstraints(max_length=200)] | None = None
    tags: str | None = None
    user: str | None = None
    service_tier: Text | None = None
    references: bool = False
    offering: Annotated[Offering, PlainValidator(Offering.parse)] | None = None
    named: Annotated[KeptName, PlainValidator(_only_name)] | None = None
    mode: Mode = Mode.LIVE
    choice: Id | None = None
    error_code: Id | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What ext_authz decided; see `gateway_core.contract.GrantField`."""

    org_id: OrgId | None = None
    project_id: ProjectId | None = None
    key_id: KeyId | None = None
    model: ModelName | None = None
    price_version: Annotated[PriceVersion, Field(ge=0, le=2**62)] | None = None
    hold_nano_usd: Count | None = None
    tokens_max: Count | None = None
    input_tokens_max: Count | None = None
    max_tokens: Count | None = None
    slice_id: Id | None = None
    own_keys: Text | None = None
    mode: Mode = Mode.LIVE
    rated_as: ProviderName | None = None
    error_code: Id | None = None


@dataclass(frozen=True, slots=True)
class SpoolLine:
    """One line as Envoy wrote it; field names are those of `gateway_core.spool_fields.SpoolField`."""

    v: Literal[1]  # gateway_core.spool_fields.SPOOL_VERSION
    type: Id
    start_time: datetime
    status: Annotated[int, Field(ge=0, le=999)]
    request_id: RequestId | None = None
    reply_id: RequestId | None = None
    duration_ms: Count | None = None
    first_byte_ms: Count | None = None
    before_us: int | None = None
    after_us: int | None = None
    response_flags: Text | None = None
    response_details: Text | None = None
    cluster: Text | None = None
    attempts: SmallCount | None = None
    bytes_received: Count = 0
    bytes_sent: Count = 0
    user_agent: Text | None = None
    request: Asked | None = None
    grant: Grant | None = None
    lease: Grant | None = None
    usage_first: Text | None = None
    usage_last: Text | None = None
    service_tier: Text | None = None
    kept: Text | None = None
    sse_events: SmallCount | None = None
    sse_beside_bytes: Count | None = None
    unfinished: Json[Unfinished] | None = None
    cache: CacheOutcome | None = None

    @property
    def is_cached(self) -> bool:
        """Whether its answer is a cached one: no provider was asked."""
        return self.cache is CacheOutcome.HIT

    @property
    def is_stream(self) -> bool:
        """Whether the answer is one: asked for as such, or sent as such by a provider that read the request otherwise than we did."""
        return self.sse_events is not None or (self.request is not None and self.request.stream)

    @property
    def granted(self) -> Grant | None:
        """What ext_authz decided: about this request, or about one before it in a way that covers this one."""
        return self.lease or self.grant

    @property
    def model(self) -> ModelName | None:
        """The model's own name: as the route says that was taken, else as admission did; else what the client called it."""
        if self.request is not None and self.request.offering is not None:
            return self.request.offering.model
        if self.granted is not None and self.granted.model is not None:
            return self.granted.model
        return self.request.model if self.request is not None else None


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt at an upstream that failed, or said of its limits what has to be known.

    Field names are those of `gateway_core.spool_fields.AttemptField`.
    """

    v: Literal[1]
    type: Literal["UpstreamEnd"]
    request_id: Annotated[RequestId, StringConstraints(min_length=1, max_length=200)]
    start_time: datetime
    status: Annotated[int, Field(ge=0, le=999)]
    cluster: Text | None = None
    host: Text | None = None
    offering: Annotated[Offering, PlainValidator(Offering.parse)] | None = None
    duration_ms: Count | None = None
    response_flags: Text | None = None
    response_details: Text | None = None
    own_reply: Text | None = None
    bytes_received: Count = 0
    bytes_sent: Count = 0
    limits: Text | None = None
    org_id: Text | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it is about more than limits. A session that was begun has not failed, whoever ended it."""
        return self.status != SWITCHED and (not 0 < self.status < _ERROR_FROM or self.flags not in {None, "", "-"})

    @property
    def is_at_a_provider(self) -> bool:
        """Whether a provider was asked, or the simulator in its place, or nobody could be; no service of ours."""
        return (
            self.cluster is None or self.cluster == Cluster.SIMULATOR or provider_of_cluster(self.cluster) is not None
        )

    @property
    def ended_at(self) -> datetime:
        """When it was over."""
        return self.start_time + timedelta(milliseconds=self.duration_ms or 0)

    @property
    def answered(self) -> int:
        """The status the provider answered with; 0 if it did not, also where Envoy did in its place, behind the translator."""
        return self.status if self._flags_behind is None else 0

    @property
    def flags(self) -> str | None:
        """Envoy's flags, those from behind the translator if they are what it failed by."""
        return self.response_flags if self._flags_behind is None else self._flags_behind

    @property
    def is_own_reply(self) -> bool:
        """Whether we have answered for a reason of our own: the translator was gone or could not go on, or the credential was missing."""
        return self.own_reply == _NO_FLAGS

    @property
    def _flags_behind(self) -> str | None:
        if self.own_reply in {None, _NO_FLAGS}:
            return None
        # That a connection was tried for twice there says nothing of the attempt.
        return ",".join(flag for flag in (self.own_reply or "").split(",") if flag != _NO_ATTEMPT_LEFT)


class InvalidLineError(ValueError):
    """A line that is not of the spool's form. The message names the fields and never quotes them."""


LineT = TypeVar("LineT")

_ADAPTER: Final = TypeAdapter(SpoolLine)
_ATTEMPT_ADAPTER: Final = TypeAdapter(AttemptLine)


def parse_line(content: bytes) -> SpoolLine:
    """Read one line about a request.

    Raises:
        InvalidLineError: not JSON, another version, or a field of another kind.
    """
    return _parse(_ADAPTER, content)


def parse_any_line(content: bytes) -> SpoolLine | AttemptLine:
    """Read one line of the spool.

    Raises:
        InvalidLineError: as above.
    """
    return _parse(_ATTEMPT_ADAPTER, content) if _OF_AN_ATTEMPT in content else parse_line(content)


def _parse(adapter: TypeAdapter[LineT], content: bytes) -> LineT:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        problems = {".".join(map(str, problem["loc"])) or problem["type"] for problem in error.errors()}
        raise InvalidLineError(f"not a spool line: {', '.join(sorted(problems))[:500]}") from error


def request_id_of(content: bytes) -> RequestId | None:
    """The request id of a line that could not be read otherwise, so that its hold is kept for whoever looks at it."""
    try:
        line = json.loads(content)
    except ValueError:
        return None
    found = line.get("request_id") if isinstance(line, dict) else None
    return RequestId(found) if isinstance(found, str) and "\x00" not in found else None
