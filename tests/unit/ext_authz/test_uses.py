"""What is remembered of the use of keys until it is written down."""

from datetime import UTC, datetime, timedelta

from ext_authz.uses import KeyUses
from gateway_core.ids import KeyId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ONE, TWO, THREE = KeyId("one"), KeyId("two"), KeyId("three")


def test_the_latest_use_of_each_key_is_due_at_once() -> None:
    uses = KeyUses(keys_max=10)
    uses.note(ONE, NOW)
    uses.note(TWO, NOW)
    uses.note(ONE, NOW + SECOND)
    assert uses.due(NOW + SECOND) == {ONE: NOW + SECOND, TWO: NOW}


def test_a_key_is_due_again_a_minute_after_it_was_written_if_it_was_used_meanwhile() -> None:
    uses = KeyUses(keys_max=10)
    for key in (ONE, TWO):
        uses.note(key, NOW)
    uses.written(uses.due(NOW), NOW)
    uses.note(ONE, NOW + SECOND)
    assert uses.due(NOW + 59 * SECOND) == {}
    assert uses.due(NOW + 60 * SECOND) == {ONE: NOW + SECOND}


def test_a_use_while_another_one_is_being_written_is_not_lost() -> None:
    uses = KeyUses(keys_max=10)
    uses.note(ONE, NOW)
    writing = uses.due(NOW)
    uses.note(ONE, NOW + SECOND)
    uses.written(writing, NOW + SECOND)
    assert uses.due(NOW + 61 * SECOND) == {ONE: NOW + SECOND}


def test_what_could_not_be_written_stays_due() -> None:
    uses = KeyUses(keys_max=10)
    uses.note(ONE, NOW)
    assert uses.due(NOW) == uses.due(NOW) == {ONE: NOW}


def test_there_is_room_for_so_many_keys_and_then_for_those_that_are_in_it() -> None:
    uses = KeyUses(keys_max=2)
    for key in (ONE, TWO, THREE):
        uses.note(key, NOW)
    uses.note(TWO, NOW + SECOND)
    assert uses.due(NOW) == {ONE: NOW, TWO: NOW + SECOND}
