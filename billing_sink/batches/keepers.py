"""What billing_sink asks of providers: files and batches. By Envoy, which has their credentials and puts them in."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

import aiohttp

from billing_sink.batches.model import COMPLETION_WINDOW, MARK, JsonObject, id_in, parse_said
from gateway_core.contract import Header, Peer
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import KEEPER_PAUSED
from gateway_core.ids import ProviderName
from gateway_core.kept import ObjectId, checked_id
from gateway_core.route_keys import keepers_path
from gateway_core.settings import HostPort

SAID_BYTES_MAX: Final = 256 * 1024
"""Of what is said of one file or batch; a page of a list has a hundred."""
PAGE: Final = 100
PAGES_MAX: Final = 20
ASKED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of one line of an input: more than any body has."""
ANSWERED_BYTES_MAX: Final = 192 * 1024 * 1024
"""Of one line of answers: 2,048 vectors of 3,072 numbers have 130 MB."""
_PURPOSE: Final = "batch"
_NOT_FOUND: Final = 404
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
    async def lines(
        self, provider: ProviderName | None, file_id: ObjectId, *, line_bytes_max: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a file that are not empty, as they come, while the block runs. Of a longer one there is only the beginning.

        Raises:
            KeeperError: it cannot be had.
        """
        async with (
            self._asking("GET", _path(provider, Endpoint.FILE_CONTENT, file_id)) as response,
            aclosing(split_lines(response.content.iter_chunked(_CHUNK_BYTES), line_bytes_max)) as found,
        ):
            yield found

    async def upload(self, provider: ProviderName | None, content: bytes, mark: ObjectId) -> ObjectId:
        """Have a provider keep the input of a batch, under a name by which it can be found."""
        form = aiohttp.FormData()
        form.add_field("purpose", _PURPOSE)
        form.add_field("file", content, filename=_input_name(mark), content_type="application/jsonl")
        return _id(await self._said("POST", _path(provider, Endpoint.FILE_UPLOAD), form=form))

    async def describe(self, provider: ProviderName | None, file_id: ObjectId) -> JsonObject:
        """What a provider says of a file."""
        return await self._said("GET", _path(provider, Endpoint.FILE, file_id))

    async def delete(self, provider: ProviderName | None, file_id: ObjectId) -> None:
        """Have a provider keep a file no longer, if it does."""
        try:
            await self._said("DELETE", _path(provider, Endpoint.FILE_DELETE, file_id))
        except KeeperError as error:
            if error.status != _NOT_FOUND:
                raise

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
        asked = f"{_path(provider, Endpoint.BATCHES)}?limit={PAGE}"
        return await self._find(asked, lambda each: each.get("metadata") == {MARK: mark})

    async def find_input(self, provider: ProviderName | None, mark: ObjectId) -> ObjectId | None:
        """The input of the batch of that id, likewise."""
        asked = f"{_path(provider, Endpoint.FILES)}?limit={PAGE}&purpose={_PURPOSE}"
        found = await self._find(asked, lambda each: each.get("filename") == _input_name(mark))
        return None if found is None else _id(found)

    async def _find(self, asked: str, is_it: Callable[[JsonObject], bool]) -> JsonObject | None:
        after = ""
        for _ in range(PAGES_MAX):
            page = await self._said("GET", asked + after, bytes_max=SAID_BYTES_MAX * PAGE)
            data = page.get("data")
            listed = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
            for each in listed:
                if is_it(each):
                    return each
            if not listed or not page.get("has_more"):
                return None
            after = f"&after={_id(listed[-1])}"
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


async def split_lines(chunks: AsyncIterator[bytes], line_bytes_max: int) -> AsyncGenerator[bytes, None]:
    """The lines in what comes in chunks, each looked at once; those that are empty are left out, and longer ones cut."""
    pieces: list[bytes] = []
    held = 0
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*pieces, end[: line_bytes_max - held]])
            pieces, held = [], 0
            if line.strip():
                yield line
        if rest and held < line_bytes_max:
            pieces.append(rest[: line_bytes_max - held])
            held += len(pieces[-1])
    if (line := b"".join(pieces)).strip():
        yield line


def _input_name(mark: ObjectId) -> str:
    return f"{mark}.jsonl"


def _path(provider: ProviderName | None, endpoint: Endpoint, object_id: ObjectId | None = None) -> str:
    return keepers_path(provider) + FACTS[endpoint].path.replace("{id}", object_id or "")


def _id(said: JsonObject) -> ObjectId:
    found = id_in(said, "id")
    if found is None:
        raise KeeperError(None)
    return found
