"""Talks to one issuer: discovery, keys, the exchange of a code for who it is.

Discovery and keys are kept for an hour; an unknown key is looked for once more. Everything has a time limit and a size
limit, and no redirect is followed: the URLs are the issuer's own, and a redirect would carry a code elsewhere.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from control_plane.errors import IssuerUnavailableError, UnauthenticatedError
from control_plane.oidc.id_token import (
    Claims,
    Expected,
    Identity,
    InvalidIdTokenError,
    Person,
    PublishedKeys,
    UnknownKeyError,
    read_id_token,
)
from control_plane.oidc.issuers import IssuerSettings, is_allowed_url
from gateway_core.clock import Now
from gateway_core.logs import Logger

KEPT_FOR: Final = timedelta(hours=1)
TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 256 * 1024
CONNECTIONS_MAX: Final = 20
_OK: Final = 200
_BAD_REQUEST: Final = 400

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Answer(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Discovery(_Answer):
    """What we take from the discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    # The default is the standard's.
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)

    @property
    def endpoints(self) -> list[str]:
        """Every URL in it that is used."""
        named = (self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.userinfo_endpoint)
        return [url for url in named if url is not None]


class TokenAnswer(_Answer):
    """What we take from the answer to a code."""

    id_token: SecretStr
    access_token: SecretStr | None = None


class Refusal(_Answer):
    """Why a code was not taken (RFC 6749, section 5.2)."""

    error: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """What binds an authorization to the log-in it was begun for."""

    redirect_uri: str
    state: str
    nonce: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class Code:
    """A code that came back, with what it was asked for with."""

    code: str
    redirect_uri: str
    code_verifier: str
    nonce: str


@asynccontextmanager
async def outgoing_http() -> AsyncIterator[aiohttp.ClientSession]:
    """The client for all issuers: no cookies, no proxies of the environment."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json"},
    ) as http:
        yield http


class IssuerClient:
    """One issuer, as its client."""

    def __init__(
        self, settings: IssuerSettings, http: aiohttp.ClientSession, now: Now, log: Logger, *, loopback_http: bool
    ) -> None:
        self.settings = settings
        self._http = http
        self._now = now
        self._log = log.bind(issuer=settings.name)
        self._loopback_http = loopback_http
        self._discovery: tuple[datetime, Discovery] | None = None
        self._keys: tuple[datetime, PublishedKeys] | None = None

    async def authorization_url(self, challenge: Challenge) -> str:
        """Where the browser goes to log in.

        Raises:
            IssuerUnavailableError: it does not answer as an issuer does.
        """
        parts = urlsplit((await self._discovered()).authorization_endpoint)
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.settings.client_id,
                "redirect_uri": challenge.redirect_uri,
                "scope": " ".join(self.settings.scopes),
                "state": challenge.state,
                "nonce": challenge.nonce,
                "code_challenge": challenge.code_challenge,
                "code_challenge_method": "S256",
            }
        )
        return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))

    async def identify(self, code: Code) -> Identity:
        """Who has logged in there.

        Raises:
            UnauthenticatedError: it does not take the code, or its word proves nothing.
            IssuerUnavailableError: it does not answer as an issuer does.
        """
        discovery = await self._discovered()
        tokens = await self._exchange(discovery, code)
        try:
            claims = await self._read(discovery, tokens, code.nonce)
        except InvalidIdTokenError as error:
            self._log.warning("oidc_id_token_refused", reason=str(error))
            raise UnauthenticatedError("The issuer's answer cannot be trusted. Begin the log-in again.") from error
        if claims.email is None and discovery.userinfo_endpoint is not None and tokens.access_token is not None:
            # The standard leaves it to the issuer where the address is.
            return (await self._userinfo(discovery.userinfo_endpoint, tokens.access_token, claims)).identity(claims.iss)
        return claims.identity(claims.iss)

    async def _exchange(self, discovery: Discovery, code: Code) -> TokenAnswer:
        form = {
            "grant_type": "authorization_code",
            "code": code.code,
            "redirect_uri": code.redirect_uri,
            "code_verifier": code.code_verifier,
        }
        headers = {}
        client_id, secret = self.settings.client_id, self.settings.client_secret
        if secret is not None and "client_secret_basic" in discovery.token_endpoint_auth_methods_supported:
            # Each half is form-encoded first: RFC 6749, section 2.3.1.
            basic = aiohttp.encode_basic_auth(quote_plus(client_id), quote_plus(secret.get_secret_value()))
            headers["Authorization"] = basic
        else:
            form["client_id"] = client_id
            if secret is not None:
                form["client_secret"] = secret.get_secret_value()
        status, document = await self._ask("POST", discovery.token_endpoint, headers=headers, form=form)
        if status == _BAD_REQUEST and self._parsed(Refusal, document).error == "invalid_grant":
            raise UnauthenticatedError("The issuer does not take this code, or not any more. Begin the log-in again.")
        self._require_ok(status, "token")
        return self._parsed(TokenAnswer, document)

    async def _read(self, discovery: Discovery, tokens: TokenAnswer, nonce: str) -> Claims:
        token = tokens.id_token.get_secret_value()
        expected = Expected(self.settings.issuer, self.settings.client_id, nonce)
        try:
            return read_id_token(token, await self._published(discovery), expected, self._now())
        except UnknownKeyError:
            # The token came from the issuer itself, so nobody else can make us ask again and again.
            self._keys = None
            return read_id_token(token, await self._published(discovery), expected, self._now())

    async def _userinfo(self, url: str, token: SecretStr, claims: Claims) -> Person:
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
        status, document = await self._ask("GET", url, headers=headers)
        self._require_ok(status, "userinfo")
        person = self._parsed(Person, document)
        if person.sub != claims.sub:
            self._log.warning("oidc_userinfo_refused", reason="of another subject")
            raise UnauthenticatedError("The issuer's answer cannot be trusted. Begin the log-in again.")
        return person

    async def _discovered(self) -> Discovery:
        if self._discovery is None or self._now() - self._discovery[0] > KEPT_FOR:
            url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            status, document = await self._ask("GET", url)
            self._require_ok(status, "discovery")
            found = self._parsed(Discovery, document)
            if found.issuer != self.settings.issuer:
                raise self._unavailable("it calls itself otherwise")
            if not all(is_allowed_url(endpoint, loopback_http=self._loopback_http) for endpoint in found.endpoints):
                raise self._unavailable("an endpoint of it is not https")
            self._discovery = self._now(), found
        return self._discovery[1]

    async def _published(self, discovery: Discovery) -> PublishedKeys:
        if self._keys is None or self._now() - self._keys[0] > KEPT_FOR:
            status, document = await self._ask("GET", discovery.jwks_uri)
            self._require_ok(status, "keys")
            try:
                keys = PublishedKeys.parse(document)
            except ValueError as error:
                raise self._unavailable("its keys cannot be read") from error
            self._keys = self._now(), keys
        return self._keys[1]

    async def _ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, object]]:
        try:
            async with self._http.request(method, url, headers=headers, data=form, allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(16 * 1024):
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise self._unavailable("its answer is too large")
                status = response.status
            document = json.loads(body) if status in {_OK, _BAD_REQUEST} else {}
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            raise self._unavailable(type(error).__name__) from error
        if not isinstance(document, dict):
            raise self._unavailable("its answer is no JSON object")
        return status, document

    def _parsed(self, model: type[ModelT], document: Mapping[str, object]) -> ModelT:
        try:
            return model.model_validate(document)
        except ValidationError as error:
            raise self._unavailable(f"its {model.__name__} cannot be read") from error

    def _require_ok(self, status: int, question: str) -> None:
        if status != _OK:
            raise self._unavailable(f"it answers {status} to {question}")

    def _unavailable(self, reason: str) -> IssuerUnavailableError:
        self._log.warning("oidc_issuer_unavailable", reason=reason)
        return IssuerUnavailableError()
