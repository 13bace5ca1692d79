"""One statement for a running ClickHouse, sent as `curl` would. For people at a shell; services have a client library."""

import base64
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode, urlsplit

_OK = 200
_TIMEOUT_S = 600
"""A statement may take long, and Ctrl-C ends it."""


class ClickHouseError(RuntimeError):
    """ClickHouse refused the statement, or does not answer."""


def ask(url: str, sql: str, answer_format: str) -> bytes:
    """Execute one statement.

    Args:
        url: with user and password, as `ClickHouse.url`.
        sql: one statement; the data of an INSERT may follow it.
        answer_format: of the answer, unless the statement names one.

    Returns:
        The answer as ClickHouse formatted it; empty when the statement gives none.

    Raises:
        ClickHouseError: it was refused, with ClickHouse's own words, or the server does not answer.
    """
    server = urlsplit(url)
    credentials = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
    query = urlencode({"database": server.path.removeprefix("/"), "default_format": answer_format})
    # Not aiohttp: this is one request of a short-lived command, and the import would take longer than the answer.
    connection = HTTPConnection(server.hostname or "", server.port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", f"/?{query}", sql.encode(), {"Authorization": f"Basic {credentials}"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as error:
        raise ClickHouseError(
            f"ClickHouse at port {server.port} does not answer ({error}); see `tollgate status`"
        ) from None
    finally:
        connection.close()
    if response.status != _OK:
        raise ClickHouseError(body.decode(errors="replace").strip())
    return body
