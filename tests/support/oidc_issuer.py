"""A small real OpenID Connect issuer: HTTP on a port of loopback, keys of its own, and everything it can get wrong on request."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus, urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from control_plane.oidc.issuers import IssuerSettings
from gateway_core.clock import Now
from gateway_core.health import serving

ISSUER_NAME = "test"
CLIENT_ID = "tollgate at test"
CLIENT_SECRET = "a secret with %, : and spaces"

Algorithm = Literal["RS256", "ES256", "EdDSA"]


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _new_key(algorithm: Algorithm) -> tuple[Any, dict[str, Any]]:
    match algorithm:
        case "RS256":
            rsa = generate_rsa_key(65537, 2048)
            return rsa, RSAAlgorithm.to_jwk(rsa.public_key(), as_dict=True)
        case "ES256":
            ec = generate_ec_key(SECP256R1())
            return ec, ECAlgorithm.to_jwk(ec.public_key(), as_dict=True)
        case "EdDSA":
            ed = Ed25519PrivateKey.generate()
            return ed, OKPAlgorithm.to_jwk(ed.public_key(), as_dict=True)


class SigningKey:
    """One key pair and how it is published."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.kid = secrets.token_hex(4)
        self.private, document = _new_key(algorithm)
        self.jwk = {**document, "kid": self.kid, "use": "sig", "alg": algorithm}

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid})

    def sign_with_public_key(self, claims: dict[str, Any]) -> str:
        """HS256 with what everybody knows: for whoever takes the algorithm from the token."""
        header = b64(json.dumps({"alg": "HS256", "kid": self.kid}).encode())
        payload = b64(json.dumps(claims).encode())
        signature = hmac.digest(self.public_pem, f"{header}.{payload}".encode(), hashlib.sha256)
        return f"{header}.{payload}.{b64(signature)}"

    def unsigned(self, claims: dict[str, Any]) -> str:
        header = b64(json.dumps({"alg": "none", "kid": self.kid}).encode())
        return f"{header}.{b64(json.dumps(claims).encode())}."


@dataclass
class Grant:
    """A code that was given out, and what it is bound to."""

    redirect_uri: str
    nonce: str
    code_challenge: str
    claims: dict[str, Any]


@dataclass
class OidcIssuer:
    """The issuer. Whoever opens its authorization URL is logged in as `person`.

    Attributes:
        person: the claims about who logs in.
        change: what it does to the claims of an ID token before it signs.
        sign: how it signs; by its newest key unless it is told otherwise.
        discovery: what its discovery document says differently.
        in_userinfo: whether the claims about the person are at the userinfo endpoint instead of the ID token.
        failing: the path it answers 500 at.
        asked: how often each path was asked.
    """

    now: Now
    url: str = ""
    redirect_uris: set[str] = field(default_factory=set)
    is_public_client: bool = False
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "ada-1", "email": "ada@example.com", "email_verified": True, "name": "Ada"}
    )
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    sign: Callable[[SigningKey, dict[str, Any]], str] = SigningKey.sign
    discovery: dict[str, Any] = field(default_factory=dict)
    in_userinfo: bool = False
    userinfo: dict[str, Any] = field(default_factory=dict)
    failing: str | None = None
    refusal: str | None = None
    asked: dict[str, int] = field(default_factory=dict)
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey("RS256")])
    grants: dict[str, Grant] = field(default_factory=dict)

    def rotate(self, algorithm: Algorithm = "RS256") -> None:
        """Sign with a new key from now on, and publish no other."""
        self.keys = [SigningKey(algorithm)]

    def app(self) -> web.Application:
        @web.middleware
        async def count(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
            self.asked[request.path] = self.asked.get(request.path, 0) + 1
            if request.path == self.failing:
                raise web.HTTPInternalServerError
            response: web.StreamResponse = await handler(request)
            return response

        app = web.Application(middlewares=[count])
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/userinfo", self._userinfo)
        app.router.add_get("/elsewhere", self._elsewhere)
        app.router.add_get("/endless", self._endless)
        app.router.add_get("/silent", self._silent)
        return app

    async def _discovery(self, _request: web.Request) -> web.Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=one",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
        return web.json_response({**document, **self.discovery})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        faults = [
            name
            for name, fine in {
                "tenant": query.get("tenant") == "one",
                "client_id": query.get("client_id") == CLIENT_ID,
                "redirect_uri": query.get("redirect_uri") in self.redirect_uris,
                "response_type": query.get("response_type") == "code",
                "scope": "openid" in query.get("scope", "").split(" "),
                "code_challenge": len(query.get("code_challenge", "")) == 43,
                "code_challenge_method": query.get("code_challenge_method") == "S256",
            }.items()
            if not fine
        ]
        if faults:
            raise web.HTTPBadRequest(text=f"faults in {faults}")
        code = secrets.token_urlsafe(16)
        self.grants[code] = Grant(query["redirect_uri"], query["nonce"], query["code_challenge"], self.person)
        answer = {"error": self.refusal} if self.refusal else {"code": code}
        parameters = urlencode({**answer, "state": query["state"], "iss": self.url, "session_state": "of no interest"})
        raise web.HTTPFound(f"{query['redirect_uri']}?{parameters}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        grant = self.grants.pop(str(form["code"]), None)
        verifier = str(form["code_verifier"])
        if (
            grant is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != grant.redirect_uri
            or b64(hashlib.sha256(verifier.encode()).digest()) != grant.code_challenge
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        at = int(self.now().timestamp())
        about = {"sub": grant.claims["sub"]} if self.in_userinfo else grant.claims
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": at, "exp": at + 300, "nonce": grant.nonce, **about}
        id_token = self.sign(self.keys[0], self.change(claims))
        return web.json_response({"token_type": "Bearer", "access_token": "at the issuer", "id_token": id_token})

    def _is_client(self, request: web.Request, form: Any) -> bool:
        authorization = request.headers.get("Authorization", "")
        if self.is_public_client:
            return not authorization and form.get("client_id") == CLIENT_ID
        if "client_secret_post" in self.discovery.get("token_endpoint_auth_methods_supported", ()):
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        scheme, _, credentials = authorization.partition(" ")
        client_id, _, secret = base64.b64decode(credentials).decode().partition(":")
        return scheme == "Basic" and (unquote_plus(client_id), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)

    async def _keys(self, _request: web.Request) -> web.Response:
        foreign = {"kty": "of another time", "kid": "x"}
        return web.json_response({"keys": [foreign, *(key.jwk for key in self.keys)]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer at the issuer":
            raise web.HTTPUnauthorized
        return web.json_response({**self.person, **self.userinfo})

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        raise web.HTTPFound("/keys")

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * 16384)
        return response

    async def _silent(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")


def settings_for(issuer: OidcIssuer, **others: Any) -> IssuerSettings:
    """What our side is told about it."""
    secret = {} if issuer.is_public_client else {"client_secret": CLIENT_SECRET}
    return IssuerSettings.model_validate(
        {"name": ISSUER_NAME, "issuer": issuer.url, "client_id": CLIENT_ID, "sign_up": True, **secret, **others}
    )


@asynccontextmanager
async def oidc_issuer(now: Now) -> AsyncIterator[OidcIssuer]:
    """One on a free port of loopback."""
    issuer = OidcIssuer(now)
    async with serving(issuer.app(), "127.0.0.1", 0, drain_s=0.1, handler_cancellation=True) as (host, port):
        issuer.url = f"http://{host}:{port}"
        yield issuer
