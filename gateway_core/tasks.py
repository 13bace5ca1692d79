"""The life of a process: which command it runs, and running a service until a signal asks it to stop."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping

Command = Callable[[], Coroutine[None, None, None]]


def run_command(program: str, commands: Mapping[str, Command]) -> None:
    """Run the command named on the command line, or the first of them when none is named.

    Anything else ends the process with the usage of `python -m program`.
    """
    arguments = sys.argv[1:] or [next(iter(commands))]
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.exit(f"usage: python -m {program} [{'|'.join(commands)}]")
    asyncio.run(commands[arguments[0]]())


async def run_until_stopped(serve: Command) -> None:
    """Run `serve` until it fails, or until SIGTERM or SIGINT cancels it and its `finally` blocks have run.

    A service that fails ends its process: whoever supervises it starts it again, in a known state.
    """
    task = asyncio.create_task(serve(), name="serve")
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
