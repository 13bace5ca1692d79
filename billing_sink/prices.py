"""All prices ever published, to rate a request by the version it was admitted under. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.pricing import PriceRow

DeploymentKey = tuple[ModelName, ProviderName]


class UnknownPriceError(LookupError):
    """No price of this deployment was in force at that version."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Price rows per deployment, oldest first, as of a catalogue revision."""

    as_of: PriceVersion
    rows: Mapping[DeploymentKey, tuple[PriceRow, ...]]

    @classmethod
    def of(cls, as_of: PriceVersion, rows: Iterable[tuple[DeploymentKey, PriceRow]]) -> "PriceBook":
        """A book of rows in any order."""
        by_deployment: dict[DeploymentKey, list[PriceRow]] = {}
        for key, row in rows:
            by_deployment.setdefault(key, []).append(row)
        return cls(
            as_of, {key: tuple(sorted(found, key=lambda row: row.version)) for key, found in by_deployment.items()}
        )

    def find(self, model: ModelName, provider: ProviderName, version: PriceVersion) -> PriceRow:
        """The row in force at a version: the newest that is not newer.

        Raises:
            UnknownPriceError: there is none.
        """
        rows = self.rows.get((model, provider), ())
        index = bisect_right(rows, version, key=lambda row: row.version)
        if index == 0:
            raise UnknownPriceError(f"no price for this deployment at version {version}")
        return rows[index - 1]
