"""The two connections between Envoy and our services: certificates in a directory, and callers who show one of them."""

import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp
import grpc

from gateway_core import certificates
from gateway_core.clock import utc_now
from gateway_core.contract import Peer
from gateway_core.settings import TlsFiles


@dataclass(frozen=True)
class Certificates:
    """A directory with `certificates.FILES` in it: a test's own, or the `secrets` of a stack."""

    directory: Path

    @classmethod
    def issued(cls, directory: Path) -> Self:
        """New ones, of an authority of their own."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in certificates.issue(utc_now()).items():
            (directory / name).write_text(content)
        return cls(directory)

    def of(self, peer: Peer) -> TlsFiles:
        """What one peer is given."""
        return TlsFiles(
            self.directory / certificates.certificate_file(peer),
            self.directory / certificates.key_file(peer),
            self.directory / certificates.AUTHORITY_FILE,
        )

    def environment(self, setting: str, peer: Peer) -> dict[str, str]:
        """The same as variables."""
        files = self.of(peer)
        prefix = f"TOLLGATE_{setting}_TLS"
        return {
            f"{prefix}_CERTIFICATE": str(files.certificate),
            f"{prefix}_KEY": str(files.key),
            f"{prefix}_CA": str(files.ca),
        }

    def channel(self, port: int, server: Peer, *, caller: TlsFiles | None) -> grpc.aio.Channel:
        """To a server on this machine that has to be `server`, as whoever has the caller's certificate; None: as nobody."""
        shown = None if caller is None else (caller.key.read_bytes(), caller.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(self.of(server).ca.read_bytes(), *(shown or (None, None)))
        return grpc.aio.secure_channel(
            f"127.0.0.1:{port}", credentials, options=[("grpc.ssl_target_name_override", server)]
        )

    async def post(self, url: str, body: bytes, server: Peer, *, caller: TlsFiles | None) -> tuple[int, str]:
        """To a server on this machine, likewise by HTTP; returns status and text of the answer."""
        return await self.ask("POST", url, server, caller=caller, body=body)

    async def ask(
        self,
        method: str,
        url: str,
        server: Peer,
        *,
        caller: TlsFiles | None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """The same by any method."""
        context = ssl.create_default_context(cafile=str(self.of(server).ca))
        context.check_hostname = False
        if caller is not None:
            context.load_cert_chain(caller.certificate, caller.key)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body, headers=headers, ssl=context) as response,
        ):
            return response.status, await response.text()


@asynccontextmanager
async def certificates_for_a_while() -> AsyncIterator[Certificates]:
    """In a directory that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="tollgate-test-") as directory:
        yield Certificates.issued(Path(directory))
