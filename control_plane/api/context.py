"""What handlers find in the application, by typed keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts.mail import MailSender
from control_plane.accounts.passwords import Passwords
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.accounts.sealing import Seal
from control_plane.accounts.throttle import Throttle
from control_plane.api.authentication import Authenticator
from control_plane.api.paging import Cursors
from control_plane.catalog.credentials import CredentialCipher
from control_plane.catalog.model import Catalog
from control_plane.xds.configuration_check import ConfigurationCheck
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes
from gateway_core.logs import Logger


@dataclass(frozen=True, slots=True)
class Services:
    """What operations work with.

    Attributes:
        pepper: the key under which API keys and tokens are hashed.
        public_url: what links in mails begin with; no slash at the end.
    """

    pool: asyncpg.Pool
    authenticator: Authenticator
    access_tokens: AccessTokens
    passwords: Passwords
    throttle: Throttle
    mail: MailSender
    seal: Seal
    cursors: Cursors
    pepper: SecretStr
    public_url: str
    require_verified_email: bool
    now: Now
    random_bytes: RandomBytes
    log: Logger
    current_catalog: Callable[[], Catalog]
    provider_credentials: CredentialCipher
    configuration_check: ConfigurationCheck


SERVICES: Final = web.AppKey("services", Services)
