"""`python -m translator`."""

import asyncio

from gateway_core.logs import configure
from gateway_core.tasks import run_until_stopped
from translator.app import serve
from translator.settings import Settings


def main() -> None:
    """Read the settings and serve."""
    settings = Settings.load()
    log = configure("translator", settings.log_level)
    asyncio.run(run_until_stopped(lambda: serve(settings, log)))


if __name__ == "__main__":
    main()
