"""Small questions to a server that may not be there yet. No client library: the supervisor starts faster without one."""

import asyncio

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


async def http_get(port: int, path: str) -> str | None:
    """GET a path: None when the answer is 200, otherwise what came instead.

    HTTP/1.1, because Envoy's admin interface refuses HTTP/1.0.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    answer = await ask(port, request.encode())
    if answer is None:
        return f"http://127.0.0.1:{port}{path} does not answer"
    status = answer.decode(errors="replace").partition(" ")[2].strip()
    if status.partition(" ")[0] == "200":
        return None
    return f"http://127.0.0.1:{port}{path} answers {status}"
