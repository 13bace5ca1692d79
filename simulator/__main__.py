"""`python -m simulator`: read the settings, serve until told to stop."""

import asyncio

from gateway_core.logs import configure
from gateway_core.tasks import run_until_stopped
from simulator.app import serve
from simulator.settings import SimulatorSettings


def main() -> None:
    """Run the simulator in this process."""
    settings = SimulatorSettings.load()
    log = configure("simulator", settings.log_level)
    asyncio.run(run_until_stopped(lambda: serve(settings, log)))


if __name__ == "__main__":
    main()
