"""Small questions to a server that may not be there yet. No client library: the supervisor starts faster without one."""

import asyncio
from collections.abc import Collection

_TIMEOUT_S = 2.0
_STATUS_LINE_BYTES_MAX = 256


async def ask(port: int, request: bytes) -> bytes | None:
    """Send bytes to a port of 127.0.0.1 and return the first line of the answer; None when there is none."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_STATUS_LINE_BYTES_MAX)
            try:
                writer.write(request)
                return await reader.readline() or None
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None


_OK = frozenset({200})


async def http_get(port: int, path: str, *, bearer: str | None = None, accepted: Collection[int] = _OK) -> str | None:
    """GET a path: None when the status of the answer is an accepted one, otherwise what came instead.

    HTTP/1.1, because Envoy's admin interface refuses HTTP/1.0.
    """
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{authorization}Connection: close\r\n\r\n"
    answer = await ask(port, request.encode())
    if answer is None:
        return f"http://127.0.0.1:{port}{path} does not answer"
    status = answer.decode(errors="replace").partition(" ")[2].strip()
    if status.partition(" ")[0] in {str(code) for code in accepted}:
        return None
    return f"http://127.0.0.1:{port}{path} answers {status}"
