"""All prices and terms there ever were, to rate a request by the version it was admitted under. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.pricing import LIST_TERMS, OrgTerms, OwnKeyFee, PriceRow, Terms, own_key_terms

DeploymentKey = tuple[ModelName, ProviderName]


class UnknownPriceError(LookupError):
    """No price of this deployment was in force at that version."""


class _Versioned(Protocol):
    @property
    def version(self) -> PriceVersion: ...


KeyT = TypeVar("KeyT")
VersionedT = TypeVar("VersionedT", bound=_Versioned)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Price rows per deployment, terms per organisation and fees for own keys per provider, oldest first, as of a catalogue revision."""

    as_of: PriceVersion
    rows: Mapping[DeploymentKey, tuple[PriceRow, ...]]
    org_terms: Mapping[OrgId, tuple[OrgTerms, ...]]
    own_key_fees: Mapping[ProviderName, tuple[OwnKeyFee, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        as_of: PriceVersion,
        rows: Iterable[tuple[DeploymentKey, PriceRow]],
        org_terms: Iterable[tuple[OrgId, OrgTerms]] = (),
        own_key_fees: Iterable[tuple[ProviderName, OwnKeyFee]] = (),
    ) -> "PriceBook":
        """A book of rows, terms and fees in any order."""
        return cls(PriceVersion(0), {}, {}).with_newer(as_of, rows, org_terms, own_key_fees)

    def with_newer(
        self,
        as_of: PriceVersion,
        rows: Iterable[tuple[DeploymentKey, PriceRow]],
        org_terms: Iterable[tuple[OrgId, OrgTerms]],
        own_key_fees: Iterable[tuple[ProviderName, OwnKeyFee]],
    ) -> "PriceBook":
        """This book and what came after it, in any order, as of a newer revision."""
        fees = _merged(self.own_key_fees, own_key_fees)
        return PriceBook(as_of, _merged(self.rows, rows), _merged(self.org_terms, org_terms), fees)

    def find(self, model: ModelName, provider: ProviderName, version: PriceVersion) -> PriceRow:
        """The row in force at a version: the newest that is not newer.

        Raises:
            UnknownPriceError: there is none.
        """
        row = _in_force(self.rows.get((model, provider), ()), version)
        if row is None:
            raise UnknownPriceError(f"no price for this deployment at version {version}")
        return row

    def terms(self, org_id: OrgId | None, model: ModelName, provider: ProviderName, version: PriceVersion) -> Terms:
        """What an organisation pays for a deployment at a version; list prices if nothing else was agreed."""
        found = None if org_id is None else _in_force(self.org_terms.get(org_id, ()), version)
        return LIST_TERMS if found is None else found.at(model, provider)

    def own_key_terms(self, provider: ProviderName, version: PriceVersion) -> Terms:
        """What is paid for a request with its organisation's own key at a version: nothing if nobody has said more."""
        found = _in_force(self.own_key_fees.get(provider, ()), version)
        return own_key_terms(0 if found is None else found.fee_ppm)


def _merged(
    known: Mapping[KeyT, tuple[VersionedT, ...]], newer: Iterable[tuple[KeyT, VersionedT]]
) -> Mapping[KeyT, tuple[VersionedT, ...]]:
    added: dict[KeyT, list[VersionedT]] = {}
    for key, item in newer:
        added.setdefault(key, []).append(item)
    return {
        **known,
        **{key: (*known.get(key, ()), *sorted(items, key=lambda item: item.version)) for key, items in added.items()},
    }


def _in_force(items: Sequence[VersionedT], version: PriceVersion) -> VersionedT | None:
    index = bisect_right(items, version, key=lambda item: item.version)
    return items[index - 1] if index else None
