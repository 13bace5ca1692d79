"""All dashboards, in the order in which somebody would read them."""

from collections.abc import Mapping
from typing import Final

from dashboards.board import as_json
from dashboards.errors import errors
from dashboards.internals import internals
from dashboards.latency import latency
from dashboards.money import money
from dashboards.overview import overview
from dashboards.providers import providers
from dashboards.tenants import tenants

_BOARDS: Final = (overview, providers, tenants, latency, money, errors, internals)


def files() -> Mapping[str, str]:
    """The files that Grafana reads: their names, and what is in them."""
    return {f"{board.__name__}.json": as_json(board()) for board in _BOARDS}
