"""What is taken for an announcement of ours, and what for somebody else's."""

import pytest

from ext_authz.announcement import KeyChanged, OrgChanged, ProjectChanged, read_announcement
from gateway_core.api_keys import KeyHash
from gateway_core.ids import OrgId, ProjectId

HASH, OTHER = "ab" * 32, "0c" * 32


def test_a_change_of_a_key_brings_all_its_hashes() -> None:
    assert read_announcement(f"7:{HASH}") == KeyChanged(7, (KeyHash(bytes.fromhex(HASH)),))
    assert read_announcement(f"7:{HASH},{OTHER}") == KeyChanged(
        7, (KeyHash(bytes.fromhex(HASH)), KeyHash(bytes.fromhex(OTHER)))
    )


def test_a_change_of_all_keys_of_an_organisation_brings_its_id() -> None:
    assert read_announcement("12:org_7c2k9mzq0000000h") == OrgChanged(12, OrgId("org_7c2k9mzq0000000h"))


def test_a_change_of_all_keys_of_a_project_brings_its_id() -> None:
    assert read_announcement("12:prj_7c2k9mzq0000000h") == ProjectChanged(12, ProjectId("prj_7c2k9mzq0000000h"))


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "7",
        "7:",
        ":" + HASH,
        f"-7:{HASH}",
        f"+7:{HASH}",
        f"7:{HASH}\n",
        f" 7:{HASH}",
        f"{'9' * 19}:{HASH}",
        f"\u0667:{HASH}",
        f"7:{HASH.upper()}",
        f"7:{HASH[:-1]}",
        f"7:{HASH},",
        f"7:{HASH},org_demo",
        f"7:{','.join([HASH] * 5)}",
        "7:org_",
        "7:prj_",
        f"7:{HASH},prj_1",
        "7:org_a b",
        "7:usr_1",
    ],
)
def test_what_is_not_of_that_form_is_none_of_ours(payload: str) -> None:
    assert read_announcement(payload) is None
