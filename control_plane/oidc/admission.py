"""What becomes of somebody whom an issuer has identified. Pure.

An address alone opens an existing account only if the issuer vouches for it: else whoever can put any address into an
account at some issuer could log in as anybody here. And it opens an account whose own address was never verified only after
everything that could open that account before is void: anybody could have registered with that address, and waited.
"""

from dataclasses import dataclass

from control_plane.accounts.model import User
from control_plane.errors import ForbiddenError
from control_plane.oidc.id_token import Identity
from control_plane.oidc.issuers import IssuerSettings


@dataclass(frozen=True, slots=True)
class SignUp:
    """As a new user with this address."""

    email: str


@dataclass(frozen=True, slots=True)
class Link:
    """As the user who has verified the address here as well."""

    user: User


@dataclass(frozen=True, slots=True)
class TakeOver:
    """As the user for whose address nobody has shown that it is theirs, whoever chose the password."""

    user: User


def admit(identity: Identity, issuer: IssuerSettings, same_address: User | None) -> SignUp | Link | TakeOver:
    """What becomes of an identity that is linked to nobody.

    Args:
        identity: whom the issuer has identified.
        issuer: what we trust it with.
        same_address: the user with the identity's address.

    Raises:
        ForbiddenError: they stay outside. Whether an address has an account is told only to who has verified it.
    """
    if identity.email is None:
        raise ForbiddenError("The issuer does not say that it has verified your e-mail address.")
    if not issuer.vouches_for(identity.email):
        raise ForbiddenError("Addresses of this domain cannot log in by this issuer.")
    if same_address is not None:
        return TakeOver(same_address) if same_address.email_verified_at is None else Link(same_address)
    if not issuer.sign_up:
        raise ForbiddenError("You have no account here, and this issuer's users do not get one by logging in.")
    return SignUp(identity.email)
