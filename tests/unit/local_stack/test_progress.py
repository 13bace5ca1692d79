import pytest

from local_stack.state import ServiceStatus, State, TaskState
from tollgate.invocation import Invocation
from tollgate.progress import Lines


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Lines:
    return Lines(clock, Invocation(("tollgate",), "python", has_sdk=False))


def test_services_and_tasks_have_a_line_when_they_come_and_the_time_since_the_start(
    lines: Lines, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.now_s += 1
    lines.changed(ServiceStatus("postgres", State.STARTING))
    lines.changed(ServiceStatus("postgres", State.UP, ports={"postgres": 5432, "other": 1}))
    lines.task_changed("migrate_control_plane", TaskState.RUNNING)
    clock.now_s += 2.5
    lines.task_changed("migrate_control_plane", TaskState.DONE)
    assert capsys.readouterr().out.splitlines() == [
        "  1.00 s  postgres              up         port 5432, 1",
        "  1.00 s  migrate_control_plane running",
        "  3.50 s  migrate_control_plane done",
    ]


def test_a_stop_has_a_time_of_its_own(lines: Lines, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines.changed(ServiceStatus("postgres", State.UP, ports={"postgres": 5432}))
    clock.now_s += 3600
    lines.stopping()
    clock.now_s += 0.25
    lines.changed(ServiceStatus("postgres", State.DOWN))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "",
        "Stopping; Ctrl-C again hurries.",
        "  0.25 s  postgres              down",
    ]


@pytest.mark.parametrize("kind", ["service", "task"])
def test_a_start_that_fails_names_what_failed_and_what_it_stops(
    lines: Lines, clock: Clock, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    lines.changed(ServiceStatus("postgres", State.UP, ports={"postgres": 5432}))
    lines.changed(ServiceStatus("simulator", State.STARTING))
    clock.now_s += 2
    if kind == "service":
        lines.changed(ServiceStatus("broken", State.FAILED))
    else:
        lines.task_changed("broken", TaskState.FAILED)
    clock.now_s += 0.5
    for name in ("simulator", "broken", "postgres"):
        lines.changed(ServiceStatus(name, State.DOWN))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  2.00 s  broken                failed",
        "",
        "The start has failed; stopping what had started.",
        "  0.50 s  postgres              down",
    ]


def test_a_signal_while_a_failed_start_is_undone_does_not_begin_the_stop_anew(
    lines: Lines, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines.changed(ServiceStatus("postgres", State.UP, ports={"postgres": 5432}))
    lines.task_changed("broken", TaskState.FAILED)
    clock.now_s += 1
    lines.stopping()
    lines.changed(ServiceStatus("postgres", State.DOWN))
    assert capsys.readouterr().out.splitlines()[-1] == "  1.00 s  postgres              down"
