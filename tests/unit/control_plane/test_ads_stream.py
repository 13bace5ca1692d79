"""Aggregated discovery as a conversation with no network: requests and snapshots in, responses out."""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from control_plane.xds.ads_stream import AdsStream
from control_plane.xds.nodes import NodeRegistry, Rejection, TypeStatus
from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, TYPE_PREFIX
from control_plane.xds.snapshot import TYPES, Snapshot, TypedResources
from wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse, Node, RpcStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REVISIONS = itertools.count(1)
NAMES = {SECRET_TYPE: ["secret"], ROUTE_TYPE: ["routes"]}
"""What the node of these conversations names of the types it does not take whole."""


def snapshot(
    *, clusters: str = "c1", secrets: str = "s1", listeners: str = "l1", routes: str = "r1", more_secrets: bool = False
) -> Snapshot:
    """One resource of each type, with the given content; another content is another version."""
    contents = {
        CLUSTER_TYPE: {"cluster": clusters},
        SECRET_TYPE: {"secret": secrets} | ({"secret/other": "o"} if more_secrets else {}),
        LISTENER_TYPE: {"listener": listeners},
        ROUTE_TYPE: {"routes": routes, "routes/other": "o"},
    }
    return make(contents)


def make(contents: Mapping[str, Mapping[str, str]]) -> Snapshot:
    return Snapshot(
        next(REVISIONS),
        {
            type_url: TypedResources.of({name: text.encode() for name, text in found.items()})
            for type_url, found in contents.items()
        },
    )


class Talk:
    """One stream, and what is said on it in the order of things."""

    def __init__(self) -> None:
        self.registry = NodeRegistry(lambda: NOW, lambda: None, CollectorRegistry())
        nonces = map(str, itertools.count(1))
        self.stream = AdsStream(1, self.registry, lambda: next(nonces))

    def publish(self, published: Snapshot) -> list[DiscoveryResponse]:
        return list(self.stream.on_snapshot(published))

    def subscribe(
        self, type_url: str, names: Iterable[str] | None = None, version: str = ""
    ) -> list[DiscoveryResponse]:
        return self._say(
            DiscoveryRequest(
                node=Node(id="envoy-1"),
                type_url=type_url,
                version_info=version,
                resource_names=NAMES.get(type_url, []) if names is None else names,
            )
        )

    def ack(self, response: DiscoveryResponse, names: Iterable[str] | None = None) -> list[DiscoveryResponse]:
        return self._say(
            DiscoveryRequest(
                type_url=response.type_url,
                version_info=response.version_info,
                response_nonce=response.nonce,
                resource_names=NAMES.get(response.type_url, []) if names is None else names,
            )
        )

    def nack(self, response: DiscoveryResponse, message: str = "no") -> list[DiscoveryResponse]:
        return self._say(
            DiscoveryRequest(
                type_url=response.type_url,
                response_nonce=response.nonce,
                resource_names=NAMES.get(response.type_url, []),
                error_detail=RpcStatus(code=13, message=message),
            )
        )

    def settle(self, published: Snapshot) -> list[DiscoveryResponse]:
        """Subscribe to everything and accept all of a snapshot; returns what was sent, in order."""
        due = deque(self.publish(published))
        for type_url in TYPES:
            due.extend(self.subscribe(type_url))
        sent = []
        while due:
            sent.append(due.popleft())
            due.extend(self.ack(sent[-1]))
        return sent

    def status(self, type_url: str) -> TypeStatus:
        [node] = self.registry.nodes()
        return node.types[type_url]

    def _say(self, request: DiscoveryRequest) -> list[DiscoveryResponse]:
        return list(self.stream.on_request(request))


@pytest.fixture
def talk() -> Talk:
    return Talk()


def types(responses: Iterable[DiscoveryResponse]) -> list[str]:
    return [response.type_url for response in responses]


def contents(response: DiscoveryResponse) -> list[str]:
    return [resource.value.decode() for resource in response.resources]


def test_a_node_that_asks_before_there_is_a_snapshot_is_answered_when_there_is_one(talk: Talk) -> None:
    assert talk.subscribe(CLUSTER_TYPE) == []
    published = snapshot()
    [response] = talk.publish(published)
    assert response.type_url == CLUSTER_TYPE
    assert response.version_info == published.by_type[CLUSTER_TYPE].version
    assert [resource.type_url for resource in response.resources] == [CLUSTER_TYPE]
    assert contents(response) == ["c1"]


def test_a_node_that_asks_for_what_there_is_gets_it_at_once(talk: Talk) -> None:
    assert talk.publish(snapshot()) == []
    assert types(talk.subscribe(CLUSTER_TYPE)) == [CLUSTER_TYPE]


def test_an_accepted_version_is_in_the_registry(talk: Talk) -> None:
    talk.publish(snapshot())
    [response] = talk.subscribe(CLUSTER_TYPE)
    talk.ack(response)
    assert talk.status(CLUSTER_TYPE) == TypeStatus(response.version_info, NOW)
    assert [node.node_id for node in talk.registry.nodes()] == ["envoy-1"]


def test_only_the_first_message_has_to_say_who_the_node_is(talk: Talk) -> None:
    talk.settle(snapshot())
    assert [node.node_id for node in talk.registry.nodes()] == ["envoy-1"]


def test_every_response_has_a_nonce_of_its_own(talk: Talk) -> None:
    nonces = [response.nonce for response in talk.settle(snapshot())]
    assert len(nonces) == len(set(nonces)) == 4


def test_clusters_go_first_then_secrets_then_listeners_then_routes(talk: Talk) -> None:
    assert types(talk.settle(snapshot())) == [CLUSTER_TYPE, SECRET_TYPE, LISTENER_TYPE, ROUTE_TYPE]


def test_listeners_and_routes_wait_until_the_clusters_are_accepted(talk: Talk) -> None:
    talk.publish(snapshot())
    [clusters] = talk.subscribe(CLUSTER_TYPE)
    assert talk.subscribe(LISTENER_TYPE) == []
    assert talk.subscribe(ROUTE_TYPE) == []
    assert types(talk.ack(clusters)) == [LISTENER_TYPE, ROUTE_TYPE]


def test_secrets_are_sent_while_the_clusters_that_need_them_are_not_yet_accepted(talk: Talk) -> None:
    talk.publish(snapshot())
    [clusters] = talk.subscribe(CLUSTER_TYPE)
    [secrets] = talk.subscribe(SECRET_TYPE)
    assert contents(secrets) == ["s1"]
    assert talk.subscribe(LISTENER_TYPE) == []
    # The clusters are warm now and accepted; the secrets' own acceptance is still under way.
    assert talk.ack(clusters) == []
    assert types(talk.ack(secrets)) == [LISTENER_TYPE]


def test_at_most_one_response_of_a_type_is_unanswered(talk: Talk) -> None:
    talk.settle(snapshot())
    [first] = talk.publish(snapshot(clusters="c2"))
    assert talk.publish(snapshot(clusters="c3")) == []
    [second] = talk.ack(first)
    assert contents(second) == ["c3"]


def test_a_slow_node_skips_what_lies_between(talk: Talk) -> None:
    talk.settle(snapshot())
    [first] = talk.publish(snapshot(clusters="c2"))
    for n in range(3, 9):
        talk.publish(snapshot(clusters=f"c{n}"))
    [second] = talk.ack(first)
    assert contents(second) == ["c8"]
    assert talk.ack(second) == []


def test_an_unchanged_type_is_not_pushed(talk: Talk) -> None:
    talk.settle(snapshot())
    assert talk.publish(snapshot()) == []
    assert types(talk.publish(snapshot(routes="r2"))) == [ROUTE_TYPE]


def test_changed_routes_wait_for_changed_clusters(talk: Talk) -> None:
    talk.settle(snapshot())
    [clusters] = talk.publish(snapshot(clusters="c2", routes="r2"))
    assert clusters.type_url == CLUSTER_TYPE
    assert types(talk.ack(clusters)) == [ROUTE_TYPE]


def test_of_secrets_and_routes_a_node_gets_only_what_it_names(talk: Talk) -> None:
    talk.publish(snapshot(more_secrets=True))
    [secrets] = talk.subscribe(SECRET_TYPE, ["secret"])
    assert contents(secrets) == ["s1"]
    talk.ack(secrets)
    [routes] = talk.subscribe(ROUTE_TYPE, ["routes"])
    assert contents(routes) == ["r1"]


def test_a_name_there_is_nothing_for_is_not_answered_until_there_is(talk: Talk) -> None:
    talk.publish(snapshot())
    assert talk.subscribe(SECRET_TYPE, ["secret/other"]) == []
    [secrets] = talk.publish(snapshot(more_secrets=True))
    assert contents(secrets) == ["o"]


def test_a_node_that_names_one_more_gets_all_it_names(talk: Talk) -> None:
    talk.publish(snapshot(more_secrets=True))
    [first] = talk.subscribe(SECRET_TYPE, ["secret"])
    assert talk.ack(first, ["secret"]) == []
    [second] = talk.ack(first, ["secret", "secret/other"])
    assert sorted(contents(second)) == ["o", "s1"]


def test_a_node_that_names_one_less_gets_nothing_new(talk: Talk) -> None:
    talk.publish(snapshot(more_secrets=True))
    [first] = talk.subscribe(SECRET_TYPE, ["secret", "secret/other"])
    assert talk.ack(first, ["secret", "secret/other"]) == []
    assert talk.ack(first, ["secret"]) == []


def test_what_a_node_let_go_of_and_asks_for_again_is_sent_again(talk: Talk) -> None:
    talk.publish(snapshot())
    [first] = talk.subscribe(SECRET_TYPE, ["secret"])
    talk.ack(first, ["secret"])
    # The only cluster with a secret is removed, and later comes back as it was.
    assert talk.ack(first, []) == []
    [again] = talk.ack(first, ["secret"])
    assert contents(again) == ["s1"]


def test_a_stale_request_is_ignored(talk: Talk) -> None:
    talk.settle(snapshot(more_secrets=True))
    before = talk.status(SECRET_TYPE)
    [secrets] = talk.publish(snapshot(secrets="s2", more_secrets=True))
    stale = DiscoveryRequest(
        type_url=SECRET_TYPE,
        response_nonce="long ago",
        resource_names=["secret/other"],
        error_detail=RpcStatus(message="too late"),
    )
    assert list(talk.stream.on_request(stale)) == []
    assert talk.status(SECRET_TYPE) == before
    assert talk.ack(secrets) == []
    assert talk.status(SECRET_TYPE).accepted_version == secrets.version_info


def test_an_answer_given_twice_counts_once(talk: Talk) -> None:
    talk.publish(snapshot())
    [clusters] = talk.subscribe(CLUSTER_TYPE)
    talk.ack(clusters)
    assert talk.nack(clusters) == []
    assert talk.status(CLUSTER_TYPE).rejection is None


def test_a_refusal_is_in_the_registry_beside_what_stays_in_force(talk: Talk) -> None:
    talk.settle(snapshot())
    in_force = talk.status(CLUSTER_TYPE).accepted_version
    [clusters] = talk.publish(snapshot(clusters="c2"))
    talk.nack(clusters, "unknown filter")
    assert talk.status(CLUSTER_TYPE) == TypeStatus(
        in_force, NOW, Rejection(clusters.version_info, "unknown filter", NOW)
    )


def test_a_node_that_refuses_a_part_is_sent_no_more_of_that_snapshot(talk: Talk) -> None:
    talk.settle(snapshot())
    [clusters] = talk.publish(snapshot(clusters="c2", listeners="l2", routes="r2"))
    assert talk.nack(clusters) == []
    # Not even when it asks for a name it did not ask for before.
    assert talk.subscribe(ROUTE_TYPE, ["routes/other"]) == []


def test_a_new_snapshot_is_sent_after_a_refusal(talk: Talk) -> None:
    talk.settle(snapshot())
    [refused] = talk.publish(snapshot(clusters="bad", routes="r2"))
    talk.nack(refused)
    [remedy] = talk.publish(snapshot(clusters="c2", routes="r2"))
    assert contents(remedy) == ["c2"]
    assert types(talk.ack(remedy)) == [ROUTE_TYPE]
    assert talk.status(CLUSTER_TYPE).rejection is None


def test_going_back_to_what_was_in_force_heals_a_refusal(talk: Talk) -> None:
    talk.settle(snapshot())
    [refused] = talk.publish(snapshot(clusters="bad"))
    talk.nack(refused)
    [remedy] = talk.publish(snapshot())
    talk.ack(remedy)
    assert talk.status(CLUSTER_TYPE) == TypeStatus(remedy.version_info, NOW)


def test_a_remedy_published_while_the_node_still_thought_about_the_fault_is_sent(talk: Talk) -> None:
    talk.settle(snapshot())
    [faulty] = talk.publish(snapshot(clusters="bad"))
    assert talk.publish(snapshot(clusters="c2")) == []
    [remedy] = talk.nack(faulty)
    assert contents(remedy) == ["c2"]


def test_a_node_that_reconnects_is_not_sent_again_what_it_has(talk: Talk) -> None:
    published = snapshot()
    talk.publish(published)
    for type_url in (CLUSTER_TYPE, LISTENER_TYPE):
        assert talk.subscribe(type_url, version=published.by_type[type_url].version) == []
        assert talk.status(type_url).accepted_version == published.by_type[type_url].version


def test_a_node_that_reconnects_with_an_older_version_is_brought_up_to_date(talk: Talk) -> None:
    talk.publish(snapshot(clusters="c2"))
    [clusters] = talk.subscribe(CLUSTER_TYPE, version=snapshot().by_type[CLUSTER_TYPE].version)
    assert contents(clusters) == ["c2"]


def test_a_node_that_reconnects_gets_what_it_names_again(talk: Talk) -> None:
    # Its version does not tell which names it was given.
    published = snapshot()
    talk.publish(published)
    [secrets] = talk.subscribe(SECRET_TYPE, version=published.by_type[SECRET_TYPE].version)
    assert contents(secrets) == ["s1"]


def test_a_type_we_do_not_serve_is_ignored(talk: Talk) -> None:
    talk.publish(snapshot())
    assert talk.subscribe(TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment") == []
    assert types(talk.settle(snapshot())) == list(TYPES)


def test_streams_do_not_share_what_they_know(talk: Talk) -> None:
    published = snapshot()
    talk.settle(published)
    other = Talk()
    other.publish(published)
    assert types(other.subscribe(CLUSTER_TYPE)) == [CLUSTER_TYPE]


class Envoy:
    """Envoy's side, as far as it matters: clusters are accepted when warm, secrets and routes are asked for by need.

    Attributes:
        outbox: requests on their way to the control plane.
        warming: whether clusters were received and not yet accepted.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.outbox: deque[DiscoveryRequest] = deque()
        self._nonce = dict.fromkeys(TYPES, "")
        self._names: dict[str, list[str]] = {type_url: [] for type_url in TYPES}
        self.warming = False
        for type_url in (CLUSTER_TYPE, LISTENER_TYPE):
            self._say(type_url)

    def receive(self, response: DiscoveryResponse) -> None:
        self._nonce[response.type_url] = response.nonce
        found = dict(text.split("=") for text in contents(response))
        match response.type_url:
            case type_url if type_url == CLUSTER_TYPE:
                self.held[CLUSTER_TYPE] = found
                self.warming = True
                self._ask(SECRET_TYPE, sorted({secret for secret in found.values() if secret}))
            case type_url if type_url == SECRET_TYPE:
                self.held[SECRET_TYPE] |= {
                    name: text for name, text in found.items() if name in self._names[SECRET_TYPE]
                }
                self._say(SECRET_TYPE)
            case type_url if type_url == LISTENER_TYPE:
                self.held[LISTENER_TYPE] = found
                self._say(LISTENER_TYPE)
                self._ask(ROUTE_TYPE, ["routes"])
            case _:
                named = {name for name in found["routes"].split(",") if name}
                assert named <= self.held[CLUSTER_TYPE].keys(), "a route names a cluster that is not there"
                assert not self.warming, "a route came before its clusters were warm"
                self.held[ROUTE_TYPE] = found
                self._say(ROUTE_TYPE)
        if {secret for secret in self.held[CLUSTER_TYPE].values() if secret} <= self.held[SECRET_TYPE].keys():
            self.stop_warming()

    def stop_warming(self) -> None:
        """The secrets are there, or will not come: Envoy waits 15 s for one that was removed meanwhile."""
        if self.warming:
            self.warming = False
            self._say(CLUSTER_TYPE)

    def _ask(self, type_url: str, names: list[str]) -> None:
        if names != self._names[type_url]:
            self._names[type_url] = names
            self.held[type_url] = {name: text for name, text in self.held[type_url].items() if name in names}
            self._say(type_url)

    def _say(self, type_url: str) -> None:
        self.outbox.append(
            DiscoveryRequest(
                node=Node(id="envoy-1"),
                type_url=type_url,
                response_nonce=self._nonce[type_url],
                resource_names=self._names[type_url],
            )
        )


CREDENTIALS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "1", "2"]), max_size=3)
"""Providers, each with a credential or none."""


def of_providers(credentials: Mapping[str, str]) -> Snapshot:
    return make(
        {
            CLUSTER_TYPE: {p: f"{p}=" + (f"secret-{p}" if credential else "") for p, credential in credentials.items()},
            SECRET_TYPE: {f"secret-{p}": f"secret-{p}={text}" for p, text in credentials.items() if text},
            LISTENER_TYPE: {"listener": "listener=1"},
            ROUTE_TYPE: {"routes": "routes=" + ",".join(sorted(credentials))},
        }
    )


@given(
    published=st.lists(CREDENTIALS, min_size=1, max_size=6),
    turns=st.lists(st.sampled_from(["publish", "request", "response"]), max_size=60),
)
def test_whatever_the_timing_a_node_ends_up_with_all_of_the_last_snapshot(
    published: list[dict[str, str]], turns: list[str]
) -> None:
    talk, envoy = Talk(), Envoy()
    coming = deque(map(of_providers, published))
    inbox: deque[DiscoveryResponse] = deque()
    last = coming[-1]

    def turn(who: str) -> None:
        if who == "publish" and coming:
            inbox.extend(talk.publish(coming.popleft()))
        elif who == "request" and envoy.outbox:
            inbox.extend(talk.stream.on_request(envoy.outbox.popleft()))
        elif who == "response" and inbox:
            envoy.receive(inbox.popleft())

    for who in turns:
        turn(who)
    while coming:
        turn("publish")
    while envoy.outbox or inbox or envoy.warming:
        turn("request")
        turn("response")
        if not (envoy.outbox or inbox):
            envoy.stop_warming()

    for type_url in TYPES:
        expected = dict(content.decode().split("=") for content in last.by_type[type_url].resources.values())
        assert envoy.held[type_url] == expected


def with_clusters(*clusters: str, routes: str) -> Snapshot:
    return make(
        {
            CLUSTER_TYPE: dict.fromkeys(clusters, "content"),
            SECRET_TYPE: {"secret": "s"},
            LISTENER_TYPE: {"listener": "l"},
            ROUTE_TYPE: {"routes": routes},
        }
    )


def test_a_cluster_that_is_gone_stays_until_the_routes_that_named_it_are_gone(talk: Talk) -> None:
    talk.settle(with_clusters("old", "kept", routes="to old"))
    [both] = talk.publish(with_clusters("new", "kept", routes="to new"))
    assert {resource.type_url for resource in both.resources} == {CLUSTER_TYPE}
    assert len(both.resources) == 3
    [routes] = talk.ack(both)
    assert contents(routes) == ["to new"]
    [exact] = talk.ack(routes)
    assert exact.type_url == CLUSTER_TYPE
    assert len(exact.resources) == 2
    assert talk.ack(exact) == []


def test_a_cluster_that_is_gone_with_no_route_changed_goes_at_once(talk: Talk) -> None:
    talk.settle(with_clusters("a", "unused", routes="to a"))
    [exact] = talk.publish(with_clusters("a", routes="to a"))
    assert len(exact.resources) == 1
    assert talk.ack(exact) == []


def test_what_was_refused_is_refused_again_when_the_next_snapshot_brings_it_again(talk: Talk) -> None:
    talk.settle(snapshot(clusters="good"))
    [bad] = talk.publish(snapshot(clusters="bad", routes="r2"))
    assert talk.nack(bad) == []
    [again] = talk.publish(snapshot(clusters="bad", routes="r3"))
    assert again.type_url == CLUSTER_TYPE
    # No route of the later snapshot goes out either.
    assert talk.nack(again) == []
