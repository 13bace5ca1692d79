"""Running a service until a signal asks it to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


async def run_until_stopped(serve: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` until it fails, or until SIGTERM or SIGINT cancels it and its `finally` blocks have run.

    A service that fails ends its process: whoever supervises it starts it again, in a known state.
    """
    task = asyncio.ensure_future(serve())
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
