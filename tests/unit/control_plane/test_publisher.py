from collections.abc import Sequence

import pytest
import structlog
from prometheus_client import CollectorRegistry

from control_plane.catalog.model import Catalog, Deployment
from control_plane.publisher import Publisher
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.translate import Translator
from tests.support.catalogs import catalog, deployment, provider, settings


def revision(number: int, deployments: Sequence[Deployment]) -> Catalog:
    return catalog([provider("openai")], deployments, revision=number)


FIRST = revision(1, [deployment("gpt-4o-mini", "openai")])
UNTRANSLATABLE = revision(2, [deployment("gpt-4o-mini", "no-such-provider")])
NEXT = revision(3, [deployment("gpt-4o", "openai")])


@pytest.fixture
def cache() -> SnapshotCache:
    return SnapshotCache()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def publisher(cache: SnapshotCache, metrics: CollectorRegistry) -> Publisher:
    return Publisher(FIRST, Translator(settings()), cache, lambda: None, metrics, structlog.get_logger())


async def test_a_catalogue_that_cannot_be_translated_leaves_the_last_good_one_in_force(
    publisher: Publisher, cache: SnapshotCache, metrics: CollectorRegistry
) -> None:
    await publisher.publish(FIRST)
    good = cache.snapshot
    assert good is not None

    with structlog.testing.capture_logs() as entries:
        await publisher.publish(UNTRANSLATABLE)

    assert cache.snapshot is good
    assert publisher.catalog is FIRST
    assert metrics.get_sample_value("tollgate_control_plane_catalog_untranslatable_total") == 1
    assert metrics.get_sample_value("tollgate_control_plane_catalog_revision") == 1
    [entry] = entries
    assert (entry["event"], entry["log_level"], entry["revision"]) == ("catalog_untranslatable", "error", 2)
    # The message could quote what was to be encoded, and that may be a credential.
    assert "no-such-provider" not in str(entry)


async def test_the_next_good_catalogue_is_published(publisher: Publisher, cache: SnapshotCache) -> None:
    await publisher.publish(FIRST)
    await publisher.publish(UNTRANSLATABLE)
    await publisher.publish(NEXT)
    assert publisher.catalog is NEXT
    assert cache.snapshot is not None
    assert cache.snapshot.revision == 3
