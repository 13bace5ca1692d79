"""Serving one peer and nobody else, by gRPC or HTTP: both ends show certificates of our authority, and the other one's name is looked at.

There is no way to serve without. The files are read once, when the server starts.
"""

import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, Protocol, TypeVar

import grpc
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway_core.contract import Peer
from gateway_core.settings import TlsFiles


class Caller(Protocol):
    """As much of a servicer's context as is asked who called."""

    def peer_identities(self) -> Iterable[bytes] | None:
        """The names in the caller's certificate."""

    async def abort(self, code: grpc.StatusCode, details: str = ...) -> NoReturn:
        """End the call."""


_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Caller = TypeVar("_Caller", bound=Caller)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """What a server shows, and what it wants to be shown.

    Raises:
        OSError: a file cannot be read.
    """
    return grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        root_certificates=files.ca.read_bytes(),
        require_client_auth=True,
    )


def only_for(
    peer: Peer, method: Callable[[_Asked, _Caller], Awaitable[_Answer]]
) -> Callable[[_Asked, _Caller], Awaitable[_Answer]]:
    """A method that answers one peer; to whoever else our authority has signed it says nothing."""
    name = peer.encode()

    async def guarded(asked: _Asked, caller: _Caller) -> _Answer:
        if name not in (caller.peer_identities() or ()):
            await caller.abort(grpc.StatusCode.PERMISSION_DENIED, f"only for {peer}")
        return await method(asked, caller)

    return guarded


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for a server of HTTP.

    Raises:
        OSError: a file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for whoever dials; whom it wants to reach it says as the name of the server.

    Raises:
        OSError: as above.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    return context


def only_from(peer: Peer) -> Middleware:
    """The same as `only_for` of all that an application serves over such connections."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_from(peer, request):
            raise web.HTTPForbidden(text=f"only for {peer}\n")
        return await handler(request)

    return middleware


def _is_from(peer: Peer, request: web.Request) -> bool:
    if request.transport is None:
        return False
    certificate = request.transport.get_extra_info("peercert", {})
    return ("DNS", peer) in certificate.get("subjectAltName", ())
