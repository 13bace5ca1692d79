"""What Envoy asks of this service, in one application: whoever else our authority has signed is let in nowhere, whatever the route."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from billing_sink.batches.api import BatchesApi
from billing_sink.batches.keepers import KeeperError
from billing_sink.batches.model import BatchRefusedError
from billing_sink.keeping import Keeping
from billing_sink.quotes import Quotes
from gateway_core.contract import COST_PATH, KEEP_PATH, Peer
from gateway_core.error_headers import error_headers
from gateway_core.errors import DATABASE_UNAVAILABLE, INTERNAL, PROVIDER_UNAVAILABLE, ApiError
from gateway_core.logs import Logger
from gateway_core.mutual_tls import only_from
from gateway_core.postgres import Trouble

BODY_BYTES_MAX: Final = 128 * 1024
"""Two texts of usage of 16 KiB each, escaped, and what else is in a line."""

ERROR_BY_TYPE: Final[Mapping[type[Exception], ApiError]] = {
    KeeperError: PROVIDER_UNAVAILABLE,
    **dict.fromkeys(Trouble, DATABASE_UNAVAILABLE),
}


def for_envoy(quotes: Quotes, keeping: Keeping, batches: BatchesApi, log: Logger) -> web.Application:
    """The application with all its routes."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[only_from(Peer.ENVOY), _error_middleware(log)])
    app.router.add_post(COST_PATH, quotes.answer)
    app.router.add_post(KEEP_PATH, keeping.answer)
    app.router.add_routes(batches.routes())
    return app


def _error_middleware(log: Logger) -> Middleware:
    """Turns exceptions into answers for clients; what is in no list is logged and answered as internal."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except BatchRefusedError as refused:
            return _answer(refused.error)
        except Exception as error:  # the outermost edge: every exception becomes an answer
            found = next((answer for kind, answer in ERROR_BY_TYPE.items() if isinstance(error, kind)), None)
            if found is None:
                log.exception("request_failed", method=request.method)
                return _answer(INTERNAL)
            # No more than this: what a driver says may quote the DSN.
            status = error.status if isinstance(error, KeeperError) else None
            log.warning("request_unavailable", code=found.code, error=type(error).__name__, status=status)
            return _answer(found)

    return middleware


def _answer(error: ApiError) -> web.Response:
    return web.json_response(error.document(), status=error.status, headers=error_headers(error))
