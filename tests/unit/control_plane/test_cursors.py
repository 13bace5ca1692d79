"""A cursor fits the list it was made for, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control_plane.api.paging import Cursors
from control_plane.errors import InvalidFieldsError

CURSORS = Cursors(SecretStr("pepper"))


@given(st.integers(0, 2**63 - 1))
def test_a_cursor_leads_back_to_its_position(position: int) -> None:
    assert CURSORS.read("/keys", CURSORS.write("/keys", position)) == position


def test_no_cursor_is_the_beginning() -> None:
    assert CURSORS.read("/keys", None) is None


def test_a_cursor_of_another_list_or_installation_is_refused() -> None:
    cursor = CURSORS.write("/keys", 7)
    for cursors, path in ((CURSORS, "/projects"), (Cursors(SecretStr("other")), "/keys")):
        with pytest.raises(InvalidFieldsError):
            cursors.read(path, cursor)


@given(st.text(max_size=60))
def test_made_up_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(InvalidFieldsError):
        CURSORS.read("/keys", cursor)
