"""What billing_sink asks of providers: files and batches. By Envoy, which has their credentials and puts them in."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import aiohttp

from billing_sink.batches.model import COMPLETION_WINDOW, MARK, JsonObject, id_in, parse_said
from gateway_core.contract import Header, Peer, keepers_path
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import KEEPER_PAUSED
from gateway_core.ids import ProviderName
from gateway_core.kept import ObjectId, checked_id
from gateway_core.settings import HostPort

SAID_BYTES_MAX: Final = 256 * 1024
"""Of what is said of one file or batch; a page of a list has a hundred."""
PAGE: Final = 100
PAGES_MAX: Final = 20
LINE_BYTES_MAX: Final = 32 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=310)
"""Envoy ends it before, and says so."""


class KeeperError(Exception):
    """A provider that has not done what it was asked to.

    Attributes:
        status: what it answered with; None where nobody knows what has become of the request.
        is_paused: whether it was not asked, since an operator has paused it.
    """

    def __init__(self, status: int | None, *, is_paused: bool = False) -> None:
        super().__init__("paused" if is_paused else f"status {status}")
        self.status = status
        self.is_paused = is_paused

    @property
    def is_refusal(self) -> bool:
        """Whether it has refused to do it."""
        return self.status is not None and 400 <= self.status < 500  # noqa: PLR2004 - the client's errors


class Keepers:
    """One session for all providers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @asynccontextmanager
    async def lines(self, provider: ProviderName | None, file_id: ObjectId) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a file that are not empty, as they come, while the block runs.

        Raises:
            KeeperError: it cannot be had, or has a line that is longer than any that is read.
        """
        async with (
            self._asking("GET", _path(provider, Endpoint.FILE_CONTENT, file_id)) as response,
            aclosing(_lines(response)) as found,
        ):
            yield found

    async def upload(self, provider: ProviderName | None, content: bytes) -> ObjectId:
        """Have a provider keep the input of a batch."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename="batch.jsonl", content_type="application/jsonl")
        return _id(await self._said("POST", _path(provider, Endpoint.FILE_UPLOAD), form=form))

    async def describe(self, provider: ProviderName | None, file_id: ObjectId) -> JsonObject:
        """What a provider says of a file."""
        return await self._said("GET", _path(provider, Endpoint.FILE, file_id))

    async def delete(self, provider: ProviderName | None, file_id: ObjectId) -> None:
        """Have a provider keep a file no longer."""
        await self._said("DELETE", _path(provider, Endpoint.FILE_DELETE, file_id))

    async def create(
        self, provider: ProviderName | None, input_file_id: ObjectId, endpoint: Endpoint, mark: ObjectId
    ) -> JsonObject:
        """Have a provider begin a batch."""
        body = {
            "input_file_id": input_file_id,
            "endpoint": FACTS[endpoint].path,
            "completion_window": COMPLETION_WINDOW,
            "metadata": {MARK: mark},
        }
        return await self._said("POST", _path(provider, Endpoint.BATCH_CREATE), document=body)

    async def look_at(self, provider: ProviderName | None, upstream_id: str) -> JsonObject:
        """What a provider says of a batch."""
        return await self._said("GET", _path(provider, Endpoint.BATCH, checked_id(upstream_id)))

    async def cancel(self, provider: ProviderName | None, upstream_id: str) -> JsonObject:
        """Have a provider begin no more lines of a batch."""
        return await self._said("POST", _path(provider, Endpoint.BATCH_CANCEL, checked_id(upstream_id)))

    async def find(self, provider: ProviderName | None, mark: ObjectId) -> JsonObject | None:
        """The batch that bears our id, among the newest that a provider has; None if there is none."""
        after = ""
        for _ in range(PAGES_MAX):
            page = await self._said(
                "GET", f"{_path(provider, Endpoint.BATCHES)}?limit={PAGE}{after}", bytes_max=SAID_BYTES_MAX * PAGE
            )
            data = page.get("data")
            batches = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
            for each in batches:
                if each.get("metadata") == {MARK: mark}:
                    return each
            if not batches or not page.get("has_more"):
                return None
            after = f"&after={_id(batches[-1])}"
        return None

    async def _said(
        self,
        method: str,
        path: str,
        *,
        form: aiohttp.FormData | None = None,
        document: JsonObject | None = None,
        bytes_max: int = SAID_BYTES_MAX,
    ) -> JsonObject:
        async with self._asking(method, path, form=form, document=document) as response:
            content = b""
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                content += chunk
                if len(content) > bytes_max:
                    raise KeeperError(None)
        said = parse_said(content)
        if said is None:
            raise KeeperError(None)
        return said

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, *, form: aiohttp.FormData | None = None, document: JsonObject | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(
                method, path, data=form, json=document, server_hostname=Peer.ENVOY, allow_redirects=False
            ) as response:
                if response.status not in range(200, 300):
                    is_paused = response.headers.get(Header.OWN_REPLY) == KEEPER_PAUSED.code
                    raise KeeperError(response.status, is_paused=is_paused)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KeeperError(None) from error


@asynccontextmanager
async def connected_keepers(address: HostPort, context: ssl.SSLContext) -> AsyncIterator[Keepers]:
    """Asks while the block runs."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    async with aiohttp.ClientSession(
        f"https://{host}:{address.port}", connector=aiohttp.TCPConnector(ssl=context), timeout=_TIMEOUT
    ) as session:
        yield Keepers(session)


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    pending = b""
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        *whole, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_BYTES_MAX:
            raise KeeperError(None)
        for line in whole:
            if line.strip():
                yield line
    if pending.strip():
        yield pending


def _path(provider: ProviderName | None, endpoint: Endpoint, object_id: ObjectId | None = None) -> str:
    return keepers_path(provider) + FACTS[endpoint].path.replace("{id}", object_id or "")


def _id(said: JsonObject) -> ObjectId:
    found = id_in(said, "id")
    if found is None:
        raise KeeperError(None)
    return found
