"""From a change of the catalogue to a new snapshot in the cache."""

import asyncio
from collections import Counter as Counts
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from control_plane.catalog.model import Catalog
from control_plane.catalog.provider_state import Condition
from control_plane.catalog.watcher import CatalogWatcher
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.translate import Translator
from gateway_core.logs import Logger


class Publisher:
    """Publishes the catalogue it begins with, and then each newer one.

    Attributes:
        catalog: the newest that Envoy is told.
        untranslatable: the revision no configuration could be made of, until a newer one is published.
    """

    def __init__(
        self,
        first: Catalog,
        translator: Translator,
        cache: SnapshotCache,
        changed: Callable[[], None],
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self.catalog = first
        self.untranslatable: int | None = None
        self._changed = changed
        self._translator = translator
        self._cache = cache
        self._log = log
        self._revision = Gauge(
            "tollgate_control_plane_catalog_revision", "Catalogue revision that Envoy is told", registry=registry
        )
        self._out = Gauge(
            "tollgate_control_plane_providers_out",
            "Providers, or models at them, that are left out of routes",
            ["provider", "state"],
            registry=registry,
        )
        self._untranslatable = Counter(
            "tollgate_control_plane_catalog_untranslatable_total",
            "Revisions no configuration could be made of",
            registry=registry,
        )

    async def run(self, watcher: CatalogWatcher) -> None:
        """Follow the catalogue for ever."""
        await self.publish(self.catalog)
        while True:
            await self.publish(await watcher.next_catalog())

    async def publish(self, catalog: Catalog) -> None:
        """Make a snapshot of a catalogue. If that cannot be done, Envoy keeps the last good one, and so do we."""
        try:
            snapshot = await asyncio.to_thread(self._translator.translate, catalog)
        except (ValueError, LookupError, TypeError) as error:
            self._untranslatable.inc()
            self.untranslatable = catalog.revision
            self._changed()
            # Only the type: the message of a failed encoding may quote what was to be encoded.
            self._log.error("catalog_untranslatable", revision=catalog.revision, error=type(error).__name__)
            return
        await self._cache.put(snapshot)
        self.catalog, self.untranslatable = catalog, None
        self._changed()
        self._revision.set(snapshot.revision)
        self._show_states(catalog)
        self._log.info("snapshot_published", revision=snapshot.revision)

    def _show_states(self, catalog: Catalog) -> None:
        counts = Counts((subject.provider, state.condition) for subject, state in catalog.states.items())
        self._out.clear()
        for provider in catalog.providers:
            for condition in Condition:
                if condition is not Condition.HEALTHY:
                    self._out.labels(provider, condition).set(counts[provider, condition])
