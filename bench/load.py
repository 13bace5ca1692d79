"""The load generator: keep-alive connections over plain sockets, so that it costs little beside what it measures."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

TIMEOUT_S = 60.0


class BadAnswerError(RuntimeError):
    """An answer other than 200: the figures would mean nothing."""


@dataclass(frozen=True)
class Load:
    """One request, to be repeated."""

    port: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def raw(self) -> bytes:
        """The bytes on the wire."""
        head = [f"POST {self.path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(self.body)}"]
        head += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*head, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Sample:
    """What one run of the load saw; durations in ms, sorted."""

    durations_ms: list[float]
    elapsed_s: float

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return len(self.durations_ms) / self.elapsed_s

    def percentile_ms(self, percent: int) -> float:
        """The duration that so many percent of the requests did not exceed."""
        return self.durations_ms[min(len(self.durations_ms) - 1, len(self.durations_ms) * percent // 100)]


async def run_load(load: Load, *, requests: int, concurrency: int) -> Sample:
    """Send the request so often, over so many connections.

    Raises:
        BadAnswerError: not every answer was 200.
    """
    raw = load.raw
    remaining = iter(range(requests))
    durations: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
        try:
            for _ in remaining:
                began = time.perf_counter()
                writer.write(raw)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise BadAnswerError(head.split(b"\r\n", 1)[0].decode())
                await reader.readexactly(_content_length(head))
                durations.append((time.perf_counter() - began) * 1000)
        finally:
            writer.close()

    began = time.perf_counter()
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(connection() for _ in range(concurrency)))
    return Sample(sorted(durations), time.perf_counter() - began)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    return int(lower[start : lower.index(b"\r\n", start)])
