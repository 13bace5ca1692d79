"""Who may come in by an issuer, and as whom."""

from datetime import UTC, datetime

import pytest

from control_plane.accounts.model import User
from control_plane.errors import ForbiddenError
from control_plane.oidc.admission import Link, SignUp, TakeOver, admit
from control_plane.oidc.id_token import Identity
from control_plane.oidc.issuers import IssuerSettings

AT = datetime(2030, 1, 1, tzinfo=UTC)
OPEN = IssuerSettings(name="corp", issuer="https://id.corp.example", client_id="tollgate", sign_up=True)
CLOSED = OPEN.model_copy(update={"sign_up": False})
ADA = Identity(OPEN.issuer, "ada-1", "ada@corp.example", "Ada")


def user(verified_at: datetime | None) -> User:
    return User(
        id="usr_1",
        email="ada@corp.example",
        name="",
        email_verified_at=verified_at,
        is_operator=False,
        created_at=AT,
        revision=1,
    )


def test_a_verified_address_links_an_unverified_one_is_taken_over_and_an_unknown_one_signs_up() -> None:
    assert admit(ADA, CLOSED, user(AT)) == Link(user(AT))
    assert admit(ADA, CLOSED, user(None)) == TakeOver(user(None))
    assert admit(ADA, OPEN, None) == SignUp("ada@corp.example")
    with pytest.raises(ForbiddenError, match="no account"):
        admit(ADA, CLOSED, None)


def test_what_the_issuer_does_not_vouch_for_is_refused_alike_whether_or_not_it_has_an_account() -> None:
    unverified = Identity(OPEN.issuer, "ada-1", None, "Ada")
    elsewhere = OPEN.model_copy(update={"email_domains": ("other.example",)})
    for identity, issuer in ((unverified, OPEN), (ADA, elsewhere)):
        refusals = set()
        for known in (None, user(AT), user(None)):
            with pytest.raises(ForbiddenError) as refused:
                admit(identity, issuer, known)
            refusals.add(refused.value.detail)
        assert len(refusals) == 1
