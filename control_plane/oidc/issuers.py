"""Which issuers this installation trusts, and with what. Pure."""

from typing import Annotated, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def is_allowed_url(url: str, *, loopback_http: bool) -> bool:
    """Whether we talk to this URL, or send a browser there: https, or http on this machine where that is allowed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable():
        return False
    return parts.scheme == "https" or (loopback_http and parts.scheme == "http" and host in LOOPBACK)


def _with_openid(scopes: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in scopes:
        raise ValueError("the scope openid is what makes it a log-in")
    return scopes


Scope = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
Domain = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+\.[A-Za-z0-9-]+$", to_lower=True)]


class IssuerSettings(BaseModel):
    """One issuer.

    Attributes:
        name: in our paths and redirect URIs; letters, digits and hyphens.
        issuer: its URL, exactly as it calls itself.
        client_secret: None for a public client, which PKCE alone protects.
        sign_up: whether somebody we do not know becomes a user.
        email_domains: the domains for whose addresses we take its word; none: for all. A person who is known by this
            issuer's subject logs in whatever their address.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    issuer: str
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    client_secret: SecretStr | None = None
    scopes: Annotated[tuple[Scope, ...], AfterValidator(_with_openid)] = ("openid", "email", "profile")
    sign_up: bool = False
    email_domains: tuple[Domain, ...] = Field(default=())

    def vouches_for(self, email: str) -> bool:
        """Whether we take its word that somebody reads this mailbox."""
        return not self.email_domains or email.rpartition("@")[2].lower() in self.email_domains
