"""`python -m simulator`: read the settings, serve until told to stop."""

import asyncio

from gateway_core.logs import configure
from simulator.app import serve
from simulator.settings import SimulatorSettings


def main() -> None:
    """Run the simulator in this process."""
    settings = SimulatorSettings()
    asyncio.run(serve(settings, configure("simulator", settings.log_level)))


if __name__ == "__main__":
    main()
