from collections.abc import Callable, Iterable

import pytest

from local_stack.ports import DEFAULTS, PORTS_OF_EACH_INSTANCE, PortTakenError, choose, displaced, replicas_of

FIRST_ANY_PORT = 40000


def taker(*, taken: Iterable[int] = ()) -> Callable[[int], bool]:
    gone = set(taken)

    def take(port: int) -> bool:
        if port in gone:
            return False
        gone.add(port)
        return True

    return take


def any_port() -> Callable[[], int]:
    ports = iter(range(FIRST_ANY_PORT, FIRST_ANY_PORT + 100))
    return lambda: next(ports)


def test_defaults_are_taken_where_they_are_free() -> None:
    ports = choose({}, {}, replicas=1, take=taker(), any_port=any_port())
    assert (ports["gateway"], ports["control_plane"], ports["envoy_admin"]) == (8080, 8081, 9901)
    assert ports.keys() == DEFAULTS.keys()


def test_a_taken_default_gives_way_to_the_next_free_port() -> None:
    ports = choose({}, {}, replicas=1, take=taker(taken=[8080, 8081, 9901]), any_port=any_port())
    assert (ports["gateway"], ports["control_plane"], ports["envoy_admin"]) == (8082, 8083, 9902)


def test_ports_of_an_earlier_run_come_back() -> None:
    kept = {name: 20000 + number for number, name in enumerate(DEFAULTS)}
    assert choose(kept, {}, replicas=1, take=taker(), any_port=any_port()) == kept


def test_a_kept_port_that_is_taken_now_is_replaced() -> None:
    ports = choose(
        {"gateway": 9000, "postgres": 9001}, {}, replicas=1, take=taker(taken=[9000, 9001]), any_port=any_port()
    )
    assert ports["gateway"] == 8080
    assert ports["postgres"] >= FIRST_ANY_PORT


def test_a_port_asked_for_by_number_goes_before_kept_and_default_ones() -> None:
    ports = choose({"gateway": 8080}, {"gateway": 8081}, replicas=1, take=taker(), any_port=any_port())
    assert (ports["gateway"], ports["control_plane"]) == (8081, 8082)


def test_a_port_asked_for_by_number_does_not_give_way() -> None:
    with pytest.raises(PortTakenError, match="port 9000 is not free"):
        choose({}, {"gateway": 9000}, replicas=1, take=taker(taken=[9000]), any_port=any_port())


def test_each_further_instance_has_ports_of_its_own_and_the_first_keeps_its_own() -> None:
    alone = choose({}, {}, replicas=1, take=taker(), any_port=any_port())
    ports = choose(alone, {}, replicas=3, take=taker(), any_port=any_port())
    assert ports.items() >= alone.items()
    assert ports.keys() - alone.keys() == {f"{name}-{number}" for name in PORTS_OF_EACH_INSTANCE for number in (2, 3)}
    assert [replicas_of(each) for each in ({}, alone, ports)] == [0, 1, 3]


def test_ports_of_instances_that_are_no_more_are_forgotten() -> None:
    before = choose({}, {}, replicas=4, take=taker(), any_port=any_port())
    ports = choose(before, {}, replicas=2, take=taker(), any_port=any_port())
    assert ports == {name: port for name, port in before.items() if not name.endswith(("-3", "-4"))}


def test_no_port_is_given_twice() -> None:
    ports = choose(dict.fromkeys(DEFAULTS, 9000), {}, replicas=1, take=taker(), any_port=any_port())
    assert len(set(ports.values())) == len(DEFAULTS)


def test_a_port_that_gave_way_is_told_with_the_one_that_came_in_its_place() -> None:
    ports = choose({}, {}, replicas=1, take=taker(taken=[9901]), any_port=any_port())
    assert displaced(ports, {}) == {"envoy_admin": (9901, ports["envoy_admin"])}
    # Where it was the last time is where it is expected.
    assert displaced(ports, ports) == {}
