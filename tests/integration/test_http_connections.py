"""What a connection to one of our HTTP servers may do without asking for anything, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry

from gateway_core.connections import Bounds
from gateway_core.health import serving
from gateway_core.networks import parse_networks

REQUEST = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A server that answers after the whole body, and its connections."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._host, self._port, self._registry = host, port, registry
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> Stream:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    async def connect_from(self, host: str, sent: bytes) -> Stream:
        reader, writer = await asyncio.open_connection(self._host, self._port, local_addr=(host, 0))
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    def cut(self, reason: str) -> float | None:
        return self._registry.get_sample_value("tollgate_http_connections_cut_total", {"reason": reason})

    @property
    def present(self) -> float | None:
        return self._registry.get_sample_value("tollgate_http_connections")


@asynccontextmanager
async def served(bounds: Bounds) -> AsyncIterator[Served]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app, registry = web.Application(), CollectorRegistry()
    app.router.add_post("/slow", answer)
    async with serving(app, "127.0.0.1", 0, registry=registry, bounds=bounds, drain_s=0.1) as address:
        running = Served(address.host, address.port, registry)
        try:
            yield running
        finally:
            running.close()


async def closed(stream: Stream, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await stream[0].read() == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


async def answered(stream: Stream) -> bytes:
    return (await stream[0].readuntil(b"\r\n\r\n")).split()[1] + await stream[0].readexactly(2)


async def test_a_connection_that_sends_nothing_or_half_a_head_is_closed() -> None:
    async with served(Bounds(first_request_s=0.4)) as server:
        streams = [await server.connect(), await server.connect(REQUEST[:20]), await server.connect()]

        async def drip() -> None:
            for each in REQUEST[:10]:
                streams[2][1].write(bytes([each]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert not await closed(streams[0], 0.1)
        assert all(await asyncio.gather(*(closed(each, 5) for each in streams)))
        await dripping
        assert (server.cut("silent"), server.present) == (3, 0)


async def test_a_request_that_has_begun_may_take_longer_and_its_connection_is_kept_for_the_next() -> None:
    async with served(Bounds(first_request_s=0.2, idle_s=0.6)) as server:
        stream = await server.connect(REQUEST[:30])
        stream[1].write(REQUEST[30:])
        for _ in range(2):
            await asyncio.sleep(0.4)
            stream[1].write(b"ok")
            assert await answered(stream) == b"200ok"
            stream[1].write(REQUEST)
        stream[1].write(b"ok")
        assert await answered(stream) == b"200ok"
        assert await closed(stream, 5)
        assert server.cut("silent") == 0


async def test_connections_beyond_the_bound_are_closed_at_once_and_there_is_room_when_one_leaves() -> None:
    async with served(Bounds(connections_max=2)) as server:
        first, second = await server.connect(REQUEST + b"ok"), await server.connect(REQUEST + b"ok")
        assert [await answered(each) for each in (first, second)] == [b"200ok"] * 2
        assert await closed(await server.connect(REQUEST + b"ok"), 5)
        assert (server.cut("full"), server.present) == (1, 2)
        first[1].close()
        await first[1].wait_closed()
        for _ in range(500):
            if server.present == 1:
                break
            await asyncio.sleep(0.01)
        assert await answered(await server.connect(REQUEST + b"ok")) == b"200ok"


async def test_one_address_takes_its_share_of_the_connections_and_is_told_so_beyond() -> None:
    async with served(Bounds(per_address_max=2)) as server:
        taken = [await server.connect(REQUEST + b"ok") for _ in range(2)]
        assert [await answered(each) for each in taken] == [b"200ok"] * 2
        beyond, _ = await server.connect(REQUEST + b"ok")
        head, _, text = (await beyond.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"Connection: close" in head
        assert text == b"Too many connections from this address. Close some, or use one for many requests.\n"
        assert (server.cut("crowded"), server.cut("full"), server.present) == (1, 0, 2)
        # Others have theirs, and it has it again when it leaves.
        assert await answered(await server.connect_from("127.0.0.2", REQUEST + b"ok")) == b"200ok"
        taken[0][1].close()
        for _ in range(500):
            if server.present == 2:
                break
            await asyncio.sleep(0.01)
        assert await answered(await server.connect(REQUEST + b"ok")) == b"200ok"


async def test_a_proxy_stands_for_many_and_takes_more_than_an_address_may() -> None:
    async with served(
        Bounds(per_address_max=1, connections_max=3, many_behind=parse_networks("127.0.0.0/31"))
    ) as server:
        for _ in range(3):
            assert await answered(await server.connect(REQUEST + b"ok")) == b"200ok"
        assert await closed(await server.connect(REQUEST + b"ok"), 5)
        assert (server.cut("crowded"), server.cut("full")) == (0, 1)
