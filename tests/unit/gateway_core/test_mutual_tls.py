"""A method that is for one peer: who gets through to it."""

from collections.abc import Iterable
from typing import NoReturn

import grpc
import pytest

from gateway_core.contract import Peer
from gateway_core.mutual_tls import only_for


class Caller:
    """Somebody with a certificate that has these names; None: without one."""

    code: grpc.StatusCode | None = None

    def __init__(self, names: list[bytes] | None) -> None:
        self._names = names

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._names

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        self.code = code
        raise PermissionError(details)


async def method(asked: str, _caller: Caller) -> str:
    return asked.upper()


@pytest.mark.parametrize("names", [[b"envoy"], [b"another", b"envoy"]])
async def test_the_peer_is_answered(names: list[bytes]) -> None:
    assert await only_for(Peer.ENVOY, method)("a", Caller(names)) == "A"


@pytest.mark.parametrize("names", [None, [], [b"control_plane"], [b"ENVOY"], [b"envoy.example.com"]])
async def test_whoever_else_is_not(names: list[bytes] | None) -> None:
    caller = Caller(names)
    with pytest.raises(PermissionError):
        await only_for(Peer.ENVOY, method)("a", caller)
    assert caller.code is grpc.StatusCode.PERMISSION_DENIED
