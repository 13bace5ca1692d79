"""By what Envoy finds the route of a request: values of `Header.ROUTE`, and paths on the way of billing_sink to providers. Pure."""

from typing import Final


def route_key(endpoint: str, model: str) -> str:
    """The value of `Header.ROUTE` for a model on an endpoint; also the name of that route. Endpoints hold no colon."""
    return f"{endpoint}:{model}"


def pinned_route_key(endpoint: str, provider: str, model: str) -> str:
    """The same at one of the model's providers only. No endpoint and no provider holds an @."""
    return f"{endpoint}@{provider}:{model}"


def kept_route_key(provider: str) -> str:
    """The value of `Header.ROUTE` for what a provider keeps, whatever is done with it. No endpoint is called `kept`."""
    return f"kept:{provider}"


BATCHES_ROUTE_KEY: Final = "batches:"
"""The value of `Header.ROUTE` for whatever is done with batches. The list of models has `models:`, and files have it, too."""


def simulator_route_key(endpoint: str) -> str:
    """The value of `Header.ROUTE` for every request with a test key on an endpoint. No endpoint is called `test`."""
    return f"test:{endpoint}"


def simulator_kept_route_key() -> str:
    """The same for what the simulator keeps for a test key, whatever is done with it."""
    return simulator_route_key("kept")


KEEPERS_TEST_PATH: Final = "/test"
"""What the path of a request begins with that billing_sink sends to the simulator, by Envoy's listener for that."""


def keepers_path(provider: str | None) -> str:
    """What the path of a request begins with that billing_sink sends to a provider, or the simulator, by Envoy's listener for that."""
    return KEEPERS_TEST_PATH if provider is None else f"/live/{provider}"
