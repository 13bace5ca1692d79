"""The load generator: keep-alive connections over plain sockets, so that it costs little beside what it measures."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

TIMEOUT_S: Final = 60.0
"""For the last answers."""
_LIMIT_BYTES: Final = 1 << 20


class BadAnswerError(RuntimeError):
    """An answer other than 200: the figures would mean nothing."""


@dataclass(frozen=True)
class Load:
    """One request, to be repeated.

    Attributes:
        authorizations: what `Authorization` says, one after the other, over and over.
    """

    port: int
    path: str
    authorizations: Sequence[str]
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def raw(self, number: int) -> bytes:
        """The bytes of the request with this number on the wire."""
        head = [f"POST {self.path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(self.body)}"]
        head.append(f"Authorization: {self.authorizations[number % len(self.authorizations)]}")
        head += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*head, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Sample:
    """What one run of the load saw; times in ms, sorted. The first byte is that of the body."""

    durations_ms: list[float]
    first_bytes_ms: list[float]
    elapsed_s: float

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return len(self.durations_ms) / self.elapsed_s


def percentile(times: Sequence[float], percent: int) -> float:
    """What so many percent of them, sorted, did not exceed."""
    return times[min(len(times) - 1, len(times) * percent // 100)]


async def run_load(load: Load, *, seconds: float, concurrency: int, first: int = 0) -> Sample:
    """Send the request again and again for so long, over so many connections; `first` is the number of the first one.

    Raises:
        BadAnswerError: not every answer was 200.
    """
    numbers = itertools.count(first)
    durations: list[float] = []
    first_bytes: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", load.port, limit=_LIMIT_BYTES)
        try:
            while (began := time.perf_counter()) < ends:
                raw = load.raw(next(numbers))
                writer.write(raw)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if not head.startswith(b"http/1.1 200"):
                    raise BadAnswerError(f"{head.decode()}{(await reader.read(1000)).decode(errors='replace')}")
                length = _content_length(head)
                if length is None:
                    size = await reader.readuntil(b"\r\n")
                    first_bytes.append((time.perf_counter() - began) * 1000)
                    while size != b"0\r\n":
                        await reader.readexactly(int(size, 16) + 2)
                        size = await reader.readuntil(b"\r\n")
                    await reader.readuntil(b"\r\n")
                else:
                    await reader.readexactly(length)
                    first_bytes.append((time.perf_counter() - began) * 1000)
                durations.append((time.perf_counter() - began) * 1000)
        finally:
            writer.close()

    began = time.perf_counter()
    ends = began + seconds
    async with asyncio.timeout(seconds + TIMEOUT_S), asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(connection())
    return Sample(sorted(durations), sorted(first_bytes), time.perf_counter() - began)


def _content_length(head: bytes) -> int | None:
    """None if it comes in chunks."""
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return None
    start += len(b"\r\ncontent-length:")
    return int(head[start : head.index(b"\r\n", start)])
