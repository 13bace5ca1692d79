from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from control_plane.xds.nodes import SILENT_AFTER, NodeRegistry, Rejection, TypeStatus
from control_plane.xds.protobuf import CLUSTER_TYPE, ROUTE_TYPE
from control_plane.xds.snapshot import TYPES

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


class Changes:
    """Counts how often a change was told."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self) -> None:
        self.told += 1

    def since(self) -> int:
        """How many since the last look."""
        told, self.told = self.told, 0
        return told


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def registry(clock: Clock, changes: Changes, metrics: CollectorRegistry) -> NodeRegistry:
    return NodeRegistry(clock, changes, metrics)


def status(registry: NodeRegistry, type_url: str = CLUSTER_TYPE) -> TypeStatus:
    [node] = registry.nodes()
    return node.types[type_url]


def revisions(registry: NodeRegistry) -> tuple[int, int | None, str | None]:
    [node] = registry.nodes()
    return node.accepted_revision, node.refused_revision, node.refusal


def test_a_node_that_connects_is_known_and_one_that_leaves_is_forgotten(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    assert [(node.node_id, node.connected_at, node.types) for node in registry.nodes()] == [("envoy-1", NOON, {})]
    registry.disconnected(1)
    assert list(registry.nodes()) == []


def test_a_stream_that_ends_before_it_said_who_it_was_is_no_trouble(registry: NodeRegistry) -> None:
    registry.disconnected(7)
    assert list(registry.nodes()) == []


def test_nodes_are_listed_by_id_even_when_two_share_one(registry: NodeRegistry) -> None:
    for stream, node_id in [(1, "b"), (2, "a"), (3, "b")]:
        registry.connected(stream, node_id)
    assert [node.node_id for node in registry.nodes()] == ["a", "b", "b"]
    registry.disconnected(1)
    assert [node.node_id for node in registry.nodes()] == ["a", "b"]


def test_what_was_accepted_is_remembered_with_its_time(registry: NodeRegistry, clock: Clock) -> None:
    registry.connected(1, "envoy-1")
    clock.now = NOON + timedelta(seconds=1)
    registry.accepted(1, CLUSTER_TYPE, "v1")
    assert status(registry) == TypeStatus("v1", clock.now)


def test_a_rejection_stands_beside_what_is_still_in_force(registry: NodeRegistry, clock: Clock) -> None:
    registry.connected(1, "envoy-1")
    registry.accepted(1, CLUSTER_TYPE, "v1")
    clock.now = NOON + timedelta(seconds=1)
    registry.rejected(1, CLUSTER_TYPE, "v2", "no such filter", revision=2)
    assert status(registry) == TypeStatus("v1", NOON, Rejection("v2", "no such filter", clock.now))


def test_a_first_version_may_be_rejected(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.rejected(1, CLUSTER_TYPE, "v1", "no", revision=2)
    assert status(registry) == TypeStatus(None, None, Rejection("v1", "no", NOON))


def test_a_rejection_is_history_once_a_version_is_accepted(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.rejected(1, CLUSTER_TYPE, "v1", "no", revision=2)
    registry.accepted(1, CLUSTER_TYPE, "v2")
    assert status(registry) == TypeStatus("v2", NOON)


def test_types_and_streams_are_kept_apart(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.connected(2, "envoy-2")
    registry.accepted(1, CLUSTER_TYPE, "v1")
    registry.rejected(1, ROUTE_TYPE, "v1", "no", revision=2)
    first, second = registry.nodes()
    assert first.types[CLUSTER_TYPE].rejection is None
    assert first.types[ROUTE_TYPE].accepted_version is None
    assert second.types == {}


def test_every_change_is_told_once_and_what_changes_nothing_is_not(registry: NodeRegistry, changes: Changes) -> None:
    registry.connected(1, "envoy-1")
    assert changes.since() == 1
    registry.accepted(1, CLUSTER_TYPE, "v1")
    assert changes.since() == 1
    registry.in_force(1, 1)
    assert changes.since() == 1
    registry.in_force(1, 1)
    assert changes.since() == 0
    registry.rejected(1, CLUSTER_TYPE, "v2", "no", revision=2)
    assert changes.since() == 1
    registry.disconnected(1)
    assert changes.since() == 1


def test_a_refusal_is_gone_once_a_newer_revision_is_in_force(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.in_force(1, 4)
    registry.rejected(1, CLUSTER_TYPE, "v5", "no", revision=5)
    assert revisions(registry) == (4, 5, "no")
    registry.in_force(1, 6)
    assert revisions(registry) == (6, None, None)


@pytest.mark.parametrize("revision", [4, 5])
def test_a_refusal_stays_while_no_newer_revision_is_in_force(registry: NodeRegistry, revision: int) -> None:
    registry.connected(1, "envoy-1")
    registry.rejected(1, CLUSTER_TYPE, "v5", "no", revision=5)
    registry.in_force(1, revision)
    assert revisions(registry) == (revision, 5, "no")


def test_a_status_that_was_handed_out_never_changes(registry: NodeRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.accepted(1, CLUSTER_TYPE, "v1")
    [before] = registry.nodes()
    seen = dict(before.types)
    registry.accepted(1, ROUTE_TYPE, "v1")
    registry.rejected(1, CLUSTER_TYPE, "v2", "no", revision=2)
    assert before.types == seen
    with pytest.raises(TypeError):
        before.types[ROUTE_TYPE] = TypeStatus()  # type: ignore[index]


@pytest.mark.usefixtures("registry")
def test_answers_of_each_type_are_counted_from_none_on(metrics: CollectorRegistry) -> None:
    for type_url in TYPES:
        labels = {"type": type_url.rpartition(".")[2], "answer": "nack"}
        assert metrics.get_sample_value("tollgate_control_plane_xds_answers_total", labels) == 0


def test_answers_and_nodes_are_counted(registry: NodeRegistry, metrics: CollectorRegistry) -> None:
    registry.connected(1, "envoy-1")
    registry.accepted(1, CLUSTER_TYPE, "v1")
    registry.rejected(1, CLUSTER_TYPE, "v2", "no", revision=2)
    registry.rejected(1, CLUSTER_TYPE, "v3", "no", revision=2)

    def answers(answer: str) -> float | None:
        return metrics.get_sample_value(
            "tollgate_control_plane_xds_answers_total", {"type": "Cluster", "answer": answer}
        )

    assert (answers("ack"), answers("nack")) == (1, 2)
    assert metrics.get_sample_value("tollgate_control_plane_xds_nodes") == 1


def is_silent(registry: NodeRegistry, metrics: CollectorRegistry) -> bool:
    [node] = registry.nodes()
    assert metrics.get_sample_value("tollgate_control_plane_xds_silent_nodes") == node.is_silent
    return node.is_silent


@pytest.mark.parametrize("accepts", [True, False])
def test_a_node_that_owes_an_answer_is_silent_after_some_seconds_and_until_it_answers(
    registry: NodeRegistry, clock: Clock, metrics: CollectorRegistry, accepts: bool
) -> None:
    registry.connected(1, "envoy")
    clock.now += SILENT_AFTER * 2
    assert not is_silent(registry, metrics)
    registry.sent(1, CLUSTER_TYPE)
    clock.now += SILENT_AFTER / 2
    registry.sent(1, ROUTE_TYPE)
    clock.now += SILENT_AFTER / 2
    assert is_silent(registry, metrics)
    if accepts:
        registry.accepted(1, CLUSTER_TYPE, "v")
    else:
        registry.rejected(1, CLUSTER_TYPE, "v", "no", revision=1)
    # The other answer is not overdue yet.
    assert not is_silent(registry, metrics)
    clock.now += SILENT_AFTER / 2
    assert is_silent(registry, metrics)
    registry.accepted(1, ROUTE_TYPE, "v")
    assert not is_silent(registry, metrics)


def test_what_is_sent_is_not_told_before_it_is_answered(registry: NodeRegistry, changes: Changes) -> None:
    registry.connected(1, "envoy")
    changes.since()
    registry.sent(1, CLUSTER_TYPE)
    assert changes.since() == 0
