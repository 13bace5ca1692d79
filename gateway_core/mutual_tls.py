"""Serving gRPC to one peer and nobody else: both ends show certificates of our authority, and the caller's name is looked at.

There is no way to serve without. The files are read once, when the server starts.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, Protocol, TypeVar

import grpc

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
