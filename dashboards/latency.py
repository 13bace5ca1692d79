"""How long requests take: until the first token, from one token to the next, and what the gateway itself adds."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import FAILED, ClickHouseQuery, listed, number, over_time, percentile

_ANSWERED = f"NOT {FAILED}"
_STREAMS = f"stream AND {_ANSWERED}"


def latency() -> Dashboard:
    """Time to first token, tokens per second, the gateway's own part."""
    return requests_board(
        *("latency", "latency", "Time to the first token, tokens per second, and what the gateway itself adds."),
        [
            (
                "",
                [
                    stat(
                        "Whole answers, half took at most",
                        number(percentile("duration_ms", 0.5)),
                        unit=units.Milliseconds,
                    ),
                    stat(
                        "Whole answers, 95 % took at most",
                        number(percentile("duration_ms", 0.95)),
                        unit=units.Milliseconds,
                    ),
                    stat(
                        "First byte, 95 % took at most",
                        number(percentile("first_byte_ms", 0.95)),
                        unit=units.Milliseconds,
                    ),
                    stat("Tokens per second, half at least", number(_tokens_per_s(0.5)), unit=units.Short),
                    stat("Tokens per second, 95 % at least", number(_tokens_per_s(0.95)), unit=units.Short),
                    stat(
                        "The gateway's part, 95 % at most",
                        number(percentile("overhead_us", 0.95)),
                        unit=units.Microseconds,
                    ),
                ],
            ),
            (
                "First token",
                [
                    chart(
                        "First byte of streams",
                        _percentiles("first_byte_ms", (0.5, 0.9, 0.95, 0.99), where=_STREAMS),
                        unit=units.Milliseconds,
                    ),
                    chart(
                        "First byte of streams, by model, 95 % took at most",
                        over_time(f"{percentile('first_byte_ms', 0.95)} AS took", by="model", where=_STREAMS),
                        unit=units.Milliseconds,
                    ),
                ],
            ),
            (
                "Tokens per second",
                [
                    chart(
                        "While a stream is written",
                        over_time(
                            *(f"{_tokens_per_s(share)} AS p{share * 100:.0f}" for share in (0.5, 0.95)), where=_STREAMS
                        ),
                        unit=units.Short,
                        description="As fast, or faster, were so many in a hundred.",
                    ),
                    chart(
                        "By model, half at least",
                        over_time(f"{_tokens_per_s(0.5)} AS tokens_per_s", by="model", where=_STREAMS),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "The gateway, and whole answers",
                [
                    chart(
                        "The gateway's own part",
                        _percentiles("overhead_us", (0.5, 0.95, 0.99), where=_ANSWERED),
                        unit=units.Microseconds,
                        description="Before the request has left for a provider, and after its answer has come, without waiting for either.",
                    ),
                    chart(
                        "Whole answers",
                        _percentiles("duration_ms", (0.5, 0.95, 0.99), where=_ANSWERED),
                        unit=units.Milliseconds,
                    ),
                    chart(
                        "Whole answers, by endpoint, 95 % took at most",
                        over_time(f"{percentile('duration_ms', 0.95)} AS took", by="endpoint", where=_ANSWERED),
                        unit=units.Milliseconds,
                        width=24,
                    ),
                    table(
                        "Models",
                        listed(
                            "sum(requests) AS request_count",
                            f"{percentile('duration_ms', 0.5)} AS p50",
                            f"{percentile('duration_ms', 0.95)} AS p95",
                            f"{percentile('duration_ms', 0.99)} AS p99",
                            f"{percentile('first_byte_ms', 0.5)} AS first_byte_p50",
                            f"{percentile('first_byte_ms', 0.95)} AS first_byte_p95",
                            f"{_tokens_per_s(0.5)} AS tokens_per_s",
                            f"{percentile('overhead_us', 0.95)} AS overhead_p95",
                            by=["model", "provider"],
                            first="request_count",
                            where=_ANSWERED,
                        ),
                    ),
                ],
            ),
        ],
    )


def _percentiles(duration: str, shares: Sequence[float], *, where: str) -> ClickHouseQuery:
    return over_time(*(f"{percentile(duration, share)} AS p{share * 100:.0f}" for share in shares), where=where)


def _tokens_per_s(share: float) -> str:
    """So fast, at least, wrote so large a share of the streams."""
    return f"1e6 / nullIf({percentile('output_token_us', share)}, 0)"
