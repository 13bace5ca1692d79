"""`python -m response_cache`."""

import asyncio

from gateway_core.logs import configure
from gateway_core.tasks import run_until_stopped
from response_cache.app import serve
from response_cache.settings import Settings


def main() -> None:
    """Read the settings and serve."""
    settings = Settings.load()
    log = configure("response_cache", settings.log_level)
    asyncio.run(run_until_stopped(lambda: serve(settings, log)))


if __name__ == "__main__":
    main()
