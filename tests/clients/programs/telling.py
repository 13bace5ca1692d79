"""How a program tells what its client was told: one JSON object for each request that it made, on standard output."""

import json
import os
from collections.abc import Callable, Mapping

GATEWAY = os.environ["TOLLGATE_GATEWAY"]
KEY = os.environ["TOLLGATE_KEY"]
UNKNOWN_KEY = os.environ["TOLLGATE_UNKNOWN_KEY"]
EMPTY_KEY = os.environ["TOLLGATE_EMPTY_KEY"]
"""One of an organisation without money."""
MODELS: Mapping[str, str] = json.loads(os.environ["TOLLGATE_MODELS"])
"""By the dialect of the one provider that each has."""
EMBEDDING_MODEL = os.environ["TOLLGATE_EMBEDDING_MODEL"]
NO_MODEL = "no-such-model"
PROMPT = "Hello. [[sim output_tokens=12 cached_tokens=3]]"


def answered(call: str, model: str, *, read: int, cached: int, written: int, said: bool) -> None:
    """A good answer, with what the client takes for its usage: uncached input, cached input, all output."""
    print(json.dumps({"call": call, "model": model, "usage": [read, cached, written], "said": said}), flush=True)


def refused(call: str, ask: Callable[[], object]) -> None:
    """A request that has to fail, with the client's own error."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001 - which one it is, is what is told
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        print(json.dumps({"call": call, "error": type(error).__name__, "status": status}), flush=True)
    else:
        raise AssertionError(f"{call} was answered")
