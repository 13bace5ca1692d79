"""What a request costs, told to Envoy while its answer waits: rated as its line in the spool will be, by the same code.

Nothing is written. Whoever asks goes on without an answer after a quarter of a second, so nothing here is retried.
"""

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from billing_sink.access_log import InvalidLineError, SpoolLine, parse_line
from billing_sink.current_prices import CurrentPrices
from billing_sink.rating import UNRATEABLE, Rated, UsageSource, rate
from gateway_core.logs import Logger
from gateway_core.money import format_usd
from gateway_core.postgres import Trouble


class Quotes:
    """Rates finished requests that have no line yet."""

    def __init__(self, prices: CurrentPrices, registry: CollectorRegistry, log: Logger) -> None:
        self._prices = prices
        self._log = log
        self._quotes = Counter(
            "tollgate_billing_sink_quotes_total",
            "Requests of which Envoy asked what they cost",
            ["outcome"],
            registry=registry,
        )

    async def answer(self, request: web.Request) -> web.Response:
        """What a request costs."""
        try:
            rated = await self._rated(parse_line(await request.read()))
        except (InvalidLineError, *UNRATEABLE) as error:
            self._log.warning("quote_impossible", error=type(error).__name__)
            return self._without("unrateable")
        except Trouble as error:
            self._log.warning("quote_unavailable", error=type(error).__name__)
            return self._without("unavailable")
        # An estimate hangs on what will have been delivered in the end.
        if rated.source is not UsageSource.PROVIDER:
            return self._without("unrateable")
        self._quotes.labels("told").inc()
        return web.Response(text=format_usd(rated.charge.price_nano_usd))

    async def _rated(self, line: SpoolLine) -> Rated:
        version = line.granted.price_version if line.granted else None
        return rate(line, self._prices.book if version is None else await self._prices.at(version))

    def _without(self, outcome: str) -> web.Response:
        self._quotes.labels(outcome).inc()
        return web.Response(status=204)
