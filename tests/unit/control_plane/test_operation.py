"""What can be declared as an operation, and what cannot."""

import pytest

from control_plane.accounts.permissions import Open
from control_plane.api.app import OPERATION_MODULES
from control_plane.api.operation import OPERATIONS, Audit, Call, operation


async def answer_nothing(call: Call) -> None:
    """Do nothing."""


def test_a_change_without_a_transaction_has_to_say_how_it_is_audited() -> None:
    known = len(OPERATIONS)
    with pytest.raises(ValueError, match="how it is audited"):
        operation("POST", "/x", tag="x", access=Open.ANYONE, in_transaction=False)(answer_nothing)
    assert len(OPERATIONS) == known


def test_a_read_has_no_transaction_and_needs_no_entry() -> None:
    for each in OPERATIONS:
        if each.method == "GET":
            assert not each.in_transaction, each.path
            assert each.audit is Audit.NONE, each.path


def test_what_leaves_no_audit_entry_is_written_down_here_too() -> None:
    modules = {module.__name__ for module in OPERATION_MODULES}
    silent = {
        each.name
        for each in OPERATIONS
        if each.audit is Audit.NONE and not each.is_read and each.handler.__module__ in modules
    }
    assert silent == {
        # They change nothing, or only what ends by itself and opens nothing.
        "begin_log_in",
        "check_catalog",
        "diff_catalog",
        "explain_route",
        "preview_import",
        "preview_starter",
        "refresh",
        "send_password_reset",
        "send_verification",
    }
