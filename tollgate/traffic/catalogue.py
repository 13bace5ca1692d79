"""What the catalogue has to have: models that the simulator answers for, one of them with providers to fall back to."""

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tollgate.api import calls, changes
from tollgate.api.document import Document
from tollgate.client import PREFIX, Client
from tollgate.connection import Reply, Request
from tollgate.errors import CommandError
from tollgate.traffic.listing import every
from tollgate.traffic.mix import ASSISTANT, CLAUDE, FLASH, LARGE, MODELS

_DEPLOYED: Final[Mapping[str, str]] = {"openai": LARGE, "anthropic": CLAUDE, "gemini": FLASH}
"""What the assistant is at each of the demo's providers, in the order in which they are tried."""


def _price(meter: str, cost: str, price: str) -> Mapping[str, str]:
    return {"meter": meter, "unit": "1M tokens", "cost": cost, "price": price}


_PRICES: Final[Mapping[str, list[Mapping[str, str]]]] = {
    "openai": [
        _price("input", "2.50", "3.50"),
        _price("cached_input", "1.25", "1.75"),
        _price("output", "10.00", "14.00"),
        _price("reasoning", "10.00", "14.00"),
    ],
    "anthropic": [
        _price("input", "3.00", "3.50"),
        _price("cached_input", "0.30", "1.75"),
        _price("cache_write_5m", "3.75", "4.50"),
        _price("cache_write_1h", "6.00", "7.00"),
        _price("output", "15.00", "16.50"),
    ],
    "gemini": [
        _price("input", "0.30", "3.50"),
        _price("cached_input", "0.03", "1.75"),
        _price("output", "2.50", "14.00"),
        _price("reasoning", "2.50", "14.00"),
    ],
}

DOCUMENT: Final[Mapping[str, Any]] = {
    "models": {ASSISTANT: {"owned_by": "demo", "context_tokens": 128_000, "max_output_tokens": 16_384}},
    "deployments": {ASSISTANT: {provider: {"upstream_model": name} for provider, name in _DEPLOYED.items()}},
    "prices": {ASSISTANT: {provider: {"prices": prices} for provider, prices in _PRICES.items()}},
    "routes": {ASSISTANT: {"match": ASSISTANT, "groups": [[{"provider": provider}] for provider in _DEPLOYED]}},
}
"""A part of a catalogue."""


def prepare(operator: Client, simulator_url: str) -> None:
    """Have the assistant served, and see that nobody is asked who would want money.

    Raises:
        CommandError: a model of the demo is not there any more, or one of its providers is a real one.
    """
    deployments = every(operator, "/deployments")
    deployed = {each["model"] for each in deployments}
    if missing := MODELS - deployed - {ASSISTANT}:
        raise CommandError(f"models of the demo are not there any more: {', '.join(sorted(missing))}")
    asked = {each["provider"] for each in deployments if each["model"] in MODELS} | _DEPLOYED.keys()
    simulator = urlsplit(simulator_url).netloc
    urls = {each["name"]: each["base_url"] for each in every(operator, "/providers")}
    if real := sorted(name for name in asked if urlsplit(urls.get(name, "")).netloc != simulator):
        raise CommandError(
            f"the simulator does not stand in for {', '.join(real)} here, and real providers cost money; "
            "start a stack without their keys, in another --data-dir"
        )
    if ASSISTANT not in deployed:
        _serve(operator)


def _serve(operator: Client) -> None:
    body = json.dumps(DOCUMENT).encode()
    path = f"{PREFIX}/catalog"
    compared = operator.send(Request("POST", f"{path}/diff", body=body), repeat=True)
    headers = {calls.IF_MATCH: compared.headers["etag"], calls.IDEMPOTENCY_KEY: secrets.token_urlsafe(16)}
    in_force(operator, operator.send(Request("POST", f"{path}/apply", body=body, headers=headers), repeat=True))


def in_force(operator: Client, reply: Reply) -> None:
    """Wait until a change of the catalogue is in force everywhere.

    Raises:
        NotAppliedError: it was not taken, or not in time.
    """
    changes.require_applied(calls.ended(Document.packaged(), reply, operator).document())
