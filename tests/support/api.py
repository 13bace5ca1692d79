"""The control plane's API on a real Postgres: an application on a port of its own, and a client that reads answers."""

import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

import aiohttp
import asyncpg
from argon2 import PasswordHasher
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from control_plane.accounts.mail import Mail
from control_plane.accounts.passwords import AT_ONCE_MAX, Passwords
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.accounts.throttle import Counters, LocalCounters, Throttle
from control_plane.analytics.clickhouse_analytics import ClickHouseAnalytics
from control_plane.api.app import make_app
from control_plane.api.authentication import Authenticator
from control_plane.api.context import Services
from control_plane.api.paging import Cursors
from control_plane.catalog.addresses import Address
from control_plane.catalog.model import Catalog
from control_plane.console.app import add_console
from control_plane.console.gateway import gateway_http
from control_plane.oidc.issuer_client import IssuerClient, outgoing_http
from control_plane.oidc.issuers import IssuerSettings
from control_plane.payments.stripe_payments import StripePayments
from control_plane.redis_cached_answers import RedisCachedAnswers
from control_plane.sealing import Seal
from control_plane.settings import Settings
from control_plane.threads import threads
from control_plane.workbench import PLACES, Workbench
from control_plane.xds.configuration_check import ConfigurationCheck
from gateway_core.api_keys import OPERATOR_PREFIX, hash_key, new_key
from gateway_core.clock import monotonic, utc_now
from gateway_core.health import serving
from gateway_core.networks import Network
from tests.support.catalogs import catalog, settings
from tests.support.logs import QUIET
from tests.support.planes import certificates_for_a_while

PEPPER = SecretStr("pepper")
KEY = SecretStr(urlsafe_b64encode(bytes(32)).decode())
PASSWORD = "correct horse battery"
INSIDE = "inside.example.com"
"""A name whose address is a private one."""


@dataclass
class Clock:
    """The present moment, which a test can move."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return utc_now() + self.ahead


@dataclass
class Mailbox:
    """Every mail that was sent."""

    mails: list[Mail] = field(default_factory=list)

    async def send(self, mail: Mail) -> None:
        self.mails.append(mail)

    def token(self, to: str) -> str:
        """The token in the newest link to somebody."""
        link = next(mail.link for mail in reversed(self.mails) if mail.to == to)
        match = re.search(r"token=([\w-]+)$", link)
        assert match
        return match[1]


@dataclass(frozen=True)
class Reply:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    text: str
    document: Any

    def __getitem__(self, name: str) -> Any:
        return self.document[name]

    @property
    def pointers(self) -> list[str]:
        """The fields a refusal points at."""
        return sorted(fault["pointer"] for fault in self.document.get("errors", ()))


@dataclass(frozen=True)
class Api:
    """A client, and what lies behind the API."""

    url: str
    session: aiohttp.ClientSession
    pool: asyncpg.Pool
    mailbox: Mailbox
    clock: Clock
    token: str | None = None

    def as_(self, token: str | None) -> "Api":
        """The same, with another credential."""
        return replace(self, token=token)

    async def call(self, method: str, path: str, json: object = None, **options: Any) -> Reply:
        """One call; `path` is behind /api/v1."""
        headers = {**options.pop("headers", {})}
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        async with self.session.request(
            method, f"{self.url}/api/v1{path}", json=json, headers=headers, **options
        ) as response:
            text = await response.text()
            document = await response.json(content_type=None) if "json" in response.content_type else None
            reply = Reply(response.status, response.headers.copy(), text, document)
        assert reply.headers["x-request-id"].startswith("req_")
        assert (reply.headers.get("content-type") == "application/problem+json; charset=utf-8") == (reply.status >= 400)
        return reply

    @asynccontextmanager
    async def from_elsewhere(self, address: str) -> AsyncIterator["Api"]:
        """The same, from another address of loopback and without a credential."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield replace(self, session=session, token=None)

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def post(self, path: str, json: object = None, **options: Any) -> Reply:
        return await self.call("POST", path, json, **options)

    async def patch(self, path: str, json: object, *, match: object = "*", **options: Any) -> Reply:
        header = str(match) if match == "*" else f'"{match}"'
        return await self.call("PATCH", path, json, headers={"If-Match": header}, **options)

    async def delete(self, path: str, **options: Any) -> Reply:
        return await self.call("DELETE", path, **options)

    async def jwks(self) -> Any:
        """The public keys of access tokens."""
        async with self.session.get(f"{self.url}/.well-known/jwks.json") as response:
            assert response.status == 200
            return await response.json()

    async def sign_up(self, email: str, organization: str = "Acme") -> "Account":
        """A registered user who has logged in."""
        made = await self.post("/auth/register", {"email": email, "password": PASSWORD, "organization": organization})
        assert made.status == 201, made.text
        tokens = await self.log_in(email)
        return Account(
            self.as_(tokens["access_token"]),
            email,
            made["user"]["id"],
            made["organization"]["id"],
            made["project"]["id"],
            tokens["refresh_token"],
        )

    async def log_in(self, email: str, password: str = PASSWORD) -> Reply:
        return await self.post("/auth/login", {"email": email, "password": password})

    async def join(self, owner: "Account", email: str, role: str) -> "Account":
        """A user of their own who then joins somebody's organisation."""
        account = await self.sign_up(email, f"Of {email}")
        invited = await owner.api.post(f"/orgs/{owner.org_id}/invitations", {"email": email, "role": role})
        assert invited.status == 201, invited.text
        accepted = await account.api.post("/invitations/accept", {"token": self.mailbox.token(email)})
        assert accepted.status == 200, accepted.text
        return account

    async def operator_token(self) -> str:
        """A machine token of the platform without limits, as the seed writes one."""
        token = new_key(OPERATOR_PREFIX, secrets.token_bytes).get_secret_value()
        await self.pool.execute(
            """
            INSERT INTO accounts.machine_tokens (token_id, name, token_hash, role)
            VALUES ($1, 'test', $2, 'platform_operator')
            """,
            f"tok_{secrets.token_hex(8)}",
            hash_key(token, PEPPER),
        )
        return token


@dataclass(frozen=True)
class Account:
    """A user who is logged in, and the organisation they began with."""

    api: Api
    email: str
    user_id: str
    org_id: str
    project_id: str
    refresh_token: str

    @property
    def org(self) -> str:
        """The path of the organisation."""
        return f"/orgs/{self.org_id}"


async def _resolve(name: str) -> Sequence[Address]:
    """A DNS that knows one name."""
    return [ip_address("10.0.0.1")] if name == INSIDE else []


@asynccontextmanager
async def running_api(
    pool: asyncpg.Pool,
    *,
    in_its_role: asyncpg.Pool | None = None,
    catalog_pool: asyncpg.Pool | None = None,
    counters: Counters | None = None,
    require_verified_email: bool = False,
    has_simulator: bool = True,
    issuers: Sequence[IssuerSettings] = (),
    clock: Clock | None = None,
    cached_answers: RedisCachedAnswers | None = None,
    clickhouse_url: SecretStr | None = None,
    stripe_api_base: str | None = None,
    stripe_webhook_secret: SecretStr | None = None,
    port: int = 0,
    registry: CollectorRegistry | None = None,
    check_settings: Settings | None = None,
    private_webhooks_allowed: bool = False,
    own_keys_max: int = 1000,
    trusted_proxies: Sequence[Network] = (),
    body_s: float = 30.0,
    hash_rounds: int = 1,
    public_url: str = "http://gateway.test",
    gateway_url: str = "http://127.0.0.1:9",
    current_catalog: Callable[[], Catalog] = lambda: catalog([]),
) -> AsyncIterator[Api]:
    """The API on a database until the block ends; argon2id with the cheapest parameters it has, unless rounds are asked for.

    Payments are made at a stand-in for Stripe, if there is one. The test looks through `pool`, and so does the API if it has no pool
    `in_its_role`.
    """
    of_test, pool = pool, in_its_role or pool
    async with (
        threads(AT_ONCE_MAX, "passwords") as password_threads,
        threads(PLACES, "workbench") as workbench_threads,
        threads(PLACES, "analytics") as analytics_threads,
        outgoing_http() as http,
        gateway_http() as to_gateway,
        certificates_for_a_while() as certificates,
    ):
        clock, mailbox = clock or Clock(), Mailbox()
        seal = Seal(KEY, secrets.token_bytes)
        access_tokens = AccessTokens(pool, seal, clock.now, secrets.token_bytes, QUIET, rotate_after=timedelta(days=30))
        services = Services(
            pool=pool,
            catalog_pool=catalog_pool or pool,
            authenticator=Authenticator(pool, access_tokens, PEPPER, clock.now),
            access_tokens=access_tokens,
            passwords=Passwords(PasswordHasher(time_cost=hash_rounds, memory_cost=8, parallelism=1), password_threads),
            throttle=Throttle(counters, LocalCounters(monotonic), QUIET),
            cached_answers=cached_answers or RedisCachedAnswers(None),
            analytics=ClickHouseAnalytics(clickhouse_url, Workbench(analytics_threads)),
            mail=mailbox,
            issuers={each.name: IssuerClient(each, http, clock.now, QUIET, loopback_http=True) for each in issuers},
            seal=seal,
            cursors=Cursors(PEPPER),
            payments=None
            if stripe_api_base is None
            else StripePayments(SecretStr("sk_test_1"), stripe_api_base, "http://gateway.test", http, QUIET),
            stripe_webhook_secret=stripe_webhook_secret,
            pepper=PEPPER,
            public_url=public_url,
            has_simulator=has_simulator,
            has_translator=False,
            require_verified_email=require_verified_email,
            private_providers_allowed=False,
            private_webhooks_allowed=private_webhooks_allowed,
            own_keys_max=own_keys_max,
            trusted_proxies=trusted_proxies,
            resolve=_resolve,
            body_s=body_s,
            now=clock.now,
            random_bytes=secrets.token_bytes,
            log=QUIET,
            current_catalog=current_catalog,
            configuration_check=ConfigurationCheck(check_settings or settings(certificates=certificates.directory)),
            workbench=Workbench(workbench_threads),
        )
        registry = registry or CollectorRegistry()
        app = make_app(services, registry=registry)
        add_console(app, services, gateway_url=gateway_url, http=to_gateway)
        async with serving(app, "127.0.0.1", port, registry=registry) as address, aiohttp.ClientSession() as session:
            yield Api(f"http://{address.host}:{address.port}", session, of_test, mailbox, clock)
