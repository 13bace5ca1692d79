"""The lines `tollgate up` prints while a stack starts, runs and stops. One event a line, with or without a terminal."""

import typer

from gateway_core.clock import Monotonic
from local_stack.endpoints import Endpoints
from local_stack.stack import Provider
from local_stack.state import ServiceStatus, State
from tollgate.welcome import welcome

_COLOURS = {State.UP: typer.colors.GREEN, State.RESTARTING: typer.colors.YELLOW}


class Lines:
    """Prints to standard output. Colours go where a terminal is."""

    def __init__(self, now: Monotonic) -> None:
        self._now = now
        self._began_s = now()

    def changed(self, status: ServiceStatus) -> None:
        """One line when a service is up, when it has to start again, and when it is down."""
        if status.state in {State.UP, State.RESTARTING, State.DOWN}:
            ports = ", ".join(str(port) for port in status.ports.values())
            detail = f"port {ports}" if status.state is State.UP else ""
            state = typer.style(f"{status.state:<11}", fg=_COLOURS.get(status.state))
            typer.echo(f"{self._now() - self._began_s:6.2f} s  {status.name:<14} {state} {detail}".rstrip())

    def ready(self, endpoints: Endpoints, providers: list[Provider]) -> None:
        """What a user needs to know."""
        typer.echo(welcome(endpoints, providers))

    def stopping(self) -> None:
        """From here on a second Ctrl-C hurries."""
        typer.echo("\nStopping; Ctrl-C again hurries.")
