"""A request that wants to pass: what is asked about. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass

from ext_authz.leases import Unspent
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, ProviderName, RequestId
from gateway_core.kept import KeptName
from gateway_core.mode import Mode
from gateway_core.offering import Offering
from gateway_core.usage import Meter, ServiceTier


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that wants to pass.

    Attributes:
        address: the other end of the client's connection; what a trusted proxy says it is, where Envoy knows one.
        credential: the key as the client sent it, or None. Hidden in repr.
        mode: of the route that was chosen for it; that of the key has to be the same.
        model: None on endpoints without one.
        body_bytes: length of the body; no tokenizer makes more tokens than bytes of it.
        has_references: whether the body names images, files or documents that are not in it.
        max_output_tokens: what the client asked for per choice, or None.
        choices: how many answers it asked for, at least 1.
        files: how many a form brings.
        file_bytes: of the body; all else is text.
        units: how many pictures, characters or inputs; see `gateway_core.contract.RequestField.UNITS`. 0 where there is nothing of it.
        query_bytes: length of the query that is read with each document of a reranking.
        is_stream: whether it wants a stream.
        least_output_tokens: below which no provider takes it; 0 if it says nothing of that.
        service_tier: what it asked for; None if it leaves the choice to the provider.
        may_search: whether the provider may make searches for it.
        meters: those that the provider will count, whatever the model makes of it.
        offering: what the route stands for that was chosen for it; None if that leads to no provider.
        named: what it names that a provider keeps.
        provider: where the client wants something to be kept.
        is_lease_wanted: whether Envoy would keep a lease.
        unspent: what Envoy gives back with this question.
        own_keys_as_of: up to which change of organisations' own keys Envoy has come; None if none can be used on its route.
    """

    request_id: RequestId
    address: str
    credential: str | None
    mode: Mode
    endpoint: Endpoint
    model: ModelName | None
    body_bytes: int
    has_references: bool
    max_output_tokens: int | None
    choices: int
    files: int = 0
    file_bytes: int = 0
    units: int = 0
    query_bytes: int = 0
    is_stream: bool = False
    least_output_tokens: int = 0
    service_tier: ServiceTier | None = None
    may_search: bool = False
    meters: frozenset[Meter] = frozenset()
    offering: Offering | None = None
    named: tuple[KeptName, ...] = ()
    provider: ProviderName | None = None
    is_lease_wanted: bool = False
    unspent: tuple[Unspent, ...] = ()
    own_keys_as_of: int | None = None

    @property
    def shape(self) -> Hashable:
        """What requests of one lease have in common beside their key: all that is decided by, but for what a lease bounds."""
        return (
            self.mode,
            self.endpoint,
            self.model,
            self.offering and str(self.offering),
            self.is_stream,
            self.has_references,
            self.may_search,
            self.meters,
            self.service_tier,
            self.choices,
            self.units,
            self.files,
            self.file_bytes,
            self.query_bytes,
            self.least_output_tokens,
        )

    @property
    def text_bytes(self) -> int:
        """What of the body is no file."""
        return self.body_bytes - self.file_bytes

    def __repr__(self) -> str:
        return f"Asked({self.request_id!r}, {self.endpoint}, {self.model!r})"
