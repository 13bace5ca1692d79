import subprocess
import sys
from collections.abc import Mapping
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from control_plane.xds.snapshot import TYPES, TypedResources
from tests.support.databases import ROOT

RESOURCES = st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=4)


def version(resources: Mapping[str, bytes]) -> str:
    return TypedResources.of(resources).version


@given(RESOURCES, st.randoms(use_true_random=False))
def test_the_order_of_resources_does_not_matter_to_their_version(resources: dict[str, bytes], random: Random) -> None:
    names = list(resources)
    random.shuffle(names)
    assert version({name: resources[name] for name in names}) == version(resources)


@given(RESOURCES, RESOURCES)
def test_different_resources_have_different_versions(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (version(one) == version(other)) is (one == other)


def test_no_byte_can_move_from_a_name_to_its_content_or_to_the_next_resource_unnoticed() -> None:
    assert len({version(r) for r in ({"ab": b"c"}, {"a": b"bc"}, {"a": b"", "bc": b""}, {"abc": b""}, {})}) == 5


def test_the_version_is_the_same_after_a_restart() -> None:
    source = "from control_plane.xds.snapshot import TypedResources as T; print(T.of({'b': b'2', 'a': b'1'}).version)"
    # In another process, where Python hashes strings in another way.
    restarted = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert restarted.stdout.strip() == version({"a": b"1", "b": b"2"})


def test_the_version_of_given_resources_never_changes() -> None:
    assert version({"a": b"1"}) == "0e9c3156ac694b08"


def test_every_type_stands_once_in_the_order() -> None:
    assert len(set(TYPES)) == len(TYPES) == 4
