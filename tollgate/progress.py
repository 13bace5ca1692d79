"""The lines `tollgate up` prints while a stack starts, runs and stops. One event a line, with or without a terminal."""

import typer

from gateway_core.clock import Monotonic
from local_stack.endpoints import Endpoints
from local_stack.stack import Provider
from local_stack.state import ServiceStatus, State, TaskState
from tollgate.invocation import Invocation
from tollgate.welcome import welcome

_COLOURS = {
    State.UP: typer.colors.GREEN,
    State.RESTARTING: typer.colors.YELLOW,
    State.FAILED: typer.colors.RED,
    TaskState.DONE: typer.colors.GREEN,
    TaskState.FAILED: typer.colors.RED,
}


class Lines:
    """Prints to standard output. Colours go where a terminal is."""

    def __init__(self, now: Monotonic, invocation: Invocation) -> None:
        self._now = now
        self._invocation = invocation
        self._began_s = now()
        """The start, later the stop: a line tells how long the one it belongs to has taken."""
        self._have_been_up: set[str] = set()
        self._is_stopping = False

    def changed(self, status: ServiceStatus) -> None:
        """One line when a service is up, did not start, has to start again, or is down after it was up."""
        if status.state is State.UP:
            self._have_been_up.add(status.name)
            self._say(status.name, status.state, f"port {', '.join(str(port) for port in status.ports.values())}")
        elif status.state is State.FAILED:
            self._say(status.name, status.state)
            self._undo()
        elif status.state is State.RESTARTING or (status.state is State.DOWN and status.name in self._have_been_up):
            self._say(status.name, status.state)

    def task_changed(self, name: str, state: TaskState) -> None:
        """One line when a task begins and one when it ends."""
        self._say(name, state)
        if state is TaskState.FAILED:
            self._undo()

    def ready(self, endpoints: Endpoints, providers: list[Provider]) -> None:
        """What a user needs to know."""
        typer.echo(welcome(endpoints, providers, self._invocation))

    def displaced(self, name: str, taken: int, port: int) -> None:
        """One line: whoever expects it at the usual port meets somebody else there."""
        typer.echo(f"Port {taken} is taken: {name} is at port {port}.")

    def stopping(self) -> None:
        """From here on a second Ctrl-C hurries."""
        self._stop("Stopping; Ctrl-C again hurries.")

    def _undo(self) -> None:
        if not self._is_stopping:
            self._stop("The start has failed; stopping what had started.")

    def _stop(self, text: str) -> None:
        if not self._is_stopping:
            self._is_stopping, self._began_s = True, self._now()
        typer.echo(f"\n{text}")

    def _say(self, name: str, state: State | TaskState, detail: str = "") -> None:
        word = typer.style(f"{state:<10}" if detail else state, fg=_COLOURS.get(state))
        typer.echo(f"{self._now() - self._began_s:6.2f} s  {name:<21} {word} {detail}".rstrip())
