"""`python -m ext_authz`."""

import asyncio

from ext_authz.app import serve
from ext_authz.settings import Settings
from gateway_core.logs import configure
from gateway_core.tasks import run_until_stopped


def main() -> None:
    """Read the settings and serve."""
    settings = Settings.load()
    log = configure("ext_authz", settings.log_level)
    asyncio.run(run_until_stopped(lambda: serve(settings, log)))


if __name__ == "__main__":
    main()
