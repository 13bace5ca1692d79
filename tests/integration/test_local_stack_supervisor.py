"""The supervisor, with small processes that stand in for services: order, healing, stopping, no process left."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from gateway_core.clock import monotonic
from local_stack import predecessors
from local_stack.process import StartError, run
from local_stack.service import Command, Service, Task
from local_stack.state import ServiceStatus, State, TaskState, born
from local_stack.supervisor import Supervisor

PYTHON = str(Path(sys.executable).resolve())
OBEDIENT = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(FILE, 'w').write('deaf\\n'); time.sleep(600)"


class Stack:
    """A supervisor at work and what it has said."""

    def __init__(self, folder: Path, services: Sequence[Service], tasks: Sequence[Task] = ()) -> None:
        self.events: list[tuple[str, State]] = []
        self.task_events: list[tuple[str, TaskState]] = []
        self.stopping, self.hurry, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.supervisor = Supervisor(
            services,
            tasks,
            log=lambda name: folder / f"{name}.log",
            changed=self._note,
            task_changed=lambda name, state: self.task_events.append((name, state)),
            now=monotonic,
        )

    def _note(self, status: ServiceStatus) -> None:
        if (status.name, status.state) not in self.events[-1:]:
            self.events.append((status.name, status.state))

    def pid(self, name: str) -> int:
        pid = self.supervisor.statuses[name].pid
        assert pid is not None
        return pid

    def order(self, state: State) -> list[str]:
        return [name for name, reached in self.events if reached is state]

    async def run(self) -> None:
        await self.supervisor.run(self.stopping, self.hurry, self.ready.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.run())
        ready = asyncio.create_task(self.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        ready.cancel()
        try:
            yield
        finally:
            self.stopping.set()
            await running


def python(code: str) -> Command:
    return Command((PYTHON, "-I", "-S", "-c", code))


async def at_once(_pid: int) -> str | None:
    return None


async def never(_pid: int) -> str | None:
    return "it never is"


def service(name: str, *needs: str, code: str = OBEDIENT, stop_stage: int = 0, stop_grace_s: float = 1.0) -> Service:
    return Service(name, python(code), ready=at_once, needs=needs, stop_stage=stop_stage, stop_grace_s=stop_grace_s)


def is_alive(pid: int) -> bool:
    return born(pid) is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_services_start_after_what_they_need_and_stop_in_stages(tmp_path: Path) -> None:
    first = service("store", stop_stage=1)
    task = Task("migrate", python(f"open({str(tmp_path / 'done')!r}, 'w').close()"), needs=("store",))
    last = service("edge", "migrate", code=f"open({str(tmp_path / 'done')!r}); {OBEDIENT}")
    stack = Stack(tmp_path, [first, last], [task])

    async with stack.running():
        pids = [stack.pid("store"), stack.pid("edge")]
        assert all(is_alive(pid) for pid in pids)

    assert stack.task_events == [("migrate", TaskState.RUNNING), ("migrate", TaskState.DONE)]
    assert stack.order(State.UP) == ["store", "edge"]
    assert stack.order(State.DOWN) == ["edge", "store"]
    assert not any(is_alive(pid) for pid in pids)


async def test_a_service_that_is_killed_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.supervisor.RESTART_PAUSE_S", 0.05)
    stack = Stack(tmp_path, [service("one"), service("two")])
    async with stack.running():
        killed, other = stack.pid("one"), stack.pid("two")
        os.kill(killed, signal.SIGKILL)
        await until(lambda: stack.order(State.UP).count("one") == 2)
        assert stack.pid("one") != killed
        assert stack.pid("two") == other
        assert stack.supervisor.statuses["one"].restarts == 1


async def test_pauses_between_restarts_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.supervisor.RESTART_PAUSE_S", 0.1)
    stack = Stack(tmp_path, [service("short", code="import time; time.sleep(0.05)")])
    async with stack.running():
        began_s = time.monotonic()
        await until(lambda: stack.supervisor.statuses["short"].restarts == 4)
        assert time.monotonic() - began_s > 0.1 + 0.2 + 0.4


async def test_a_command_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    missing = Service("broken", Command(("/nowhere/server",)), ready=never)
    stack = Stack(tmp_path, [service("fine", stop_stage=1), missing])
    with pytest.raises(StartError, match=r"broken could not be started(.|\n)*/nowhere/server: .*No such file"):
        await stack.run()
    assert stack.order(State.FAILED) == ["broken"]
    assert stack.order(State.DOWN) == ["broken", "fine"]


async def test_a_service_that_ends_before_it_is_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    ending = Service("ending", python("import sys; sys.exit('the disk is full')"), ready=never)
    stack = Stack(tmp_path, [ending])
    with pytest.raises(StartError, match=r"ending ended with exit code 1(.|\n)*the disk is full"):
        await stack.run()


async def test_a_service_that_never_gets_ready_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.process.until_ready.__defaults__", (0.3,))
    stack = Stack(tmp_path, [Service("slow", python(OBEDIENT), ready=never)])
    with pytest.raises(StartError, match=r"slow was not ready within 0.3 s: it never is"):
        await stack.run()


async def test_a_task_that_fails_ends_the_start(tmp_path: Path) -> None:
    failing = Task("migrate", python("import sys; sys.exit('column exists')"), needs=("store",))
    stack = Stack(tmp_path, [service("store"), service("edge", "migrate")], [failing])
    with pytest.raises(StartError, match=r"migrate ended with exit code 1(.|\n)*column exists"):
        await stack.run()
    assert stack.task_events == [("migrate", TaskState.RUNNING), ("migrate", TaskState.FAILED)]
    assert stack.order(State.FAILED) == []
    assert stack.order(State.DOWN) == ["store"]
    assert ("edge", State.STARTING) not in stack.events


async def test_a_task_done_in_an_earlier_start_does_not_run(tmp_path: Path) -> None:
    done = Task("migrate", python("import sys; sys.exit(1)"), is_done=True)
    stack = Stack(tmp_path, [service("edge", "migrate")], [done])
    async with stack.running():
        assert stack.ready.is_set()
    assert stack.task_events == []


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05, 0.2])
async def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path, after_s: float) -> None:
    slow = Service("slow", python(OBEDIENT), ready=never)
    long_task = Task("migrate", python(OBEDIENT), needs=("store",))
    stack = Stack(tmp_path, [service("store"), slow, service("edge", "migrate")], [long_task])
    before = children()
    running = asyncio.create_task(stack.run())
    await asyncio.sleep(after_s)
    stack.stopping.set()
    await asyncio.wait_for(running, 5)
    assert not stack.ready.is_set()
    assert children() == before


@pytest.mark.parametrize("turns", [*range(6), 50])
async def test_a_task_cancelled_at_any_step_leaves_no_process_and_no_transport(tmp_path: Path, turns: int) -> None:
    """Without a loop that goes on: what the task has not waited for itself, nobody does."""
    before = children()

    async def cancelled_task() -> None:
        running = asyncio.create_task(run("migrate", python(OBEDIENT), tmp_path / "migrate.log"))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def in_a_loop_of_its_own() -> None:
        asyncio.run(cancelled_task())
        # An unclosed transport or an unreaped child complains when it is collected, and a complaint fails the test.
        gc.collect()

    await asyncio.to_thread(in_a_loop_of_its_own)
    assert children() == before


async def test_a_service_that_does_not_obey_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    stack = Stack(tmp_path, [service("stubborn", code=STUBBORN.replace("FILE", repr(str(deaf))), stop_grace_s=0.3)])
    async with stack.running():
        await written(deaf)
        pid, began_s = stack.pid("stubborn"), time.monotonic()
    assert 0.3 <= time.monotonic() - began_s < 1.0
    assert not is_alive(pid)


async def test_hurry_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    stack = Stack(tmp_path, [service("stubborn", code=STUBBORN.replace("FILE", repr(str(deaf))), stop_grace_s=60)])
    async with stack.running():
        await written(deaf)
        stack.hurry.set()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1.0


async def test_what_a_service_has_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"""
        import os, time
        child = os.fork()
        if child:
            open({str(note)!r}, "w").write(f"{{child}}\\n")
        time.sleep(600)
    """
    stack = Stack(tmp_path, [service("parent", code=textwrap.dedent(code))])
    async with stack.running():
        child = int(await written(note))
        assert is_alive(child)
    await until(lambda: not is_alive(child))


async def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from {Path(__file__).stem} import Stack, service

        async def main() -> None:
            folder = Path({str(tmp_path)!r})
            stack = Stack(folder, [service("one"), service("two")])
            running = asyncio.create_task(stack.run())
            await stack.ready.wait()
            (folder / "pids").write_text(" ".join(str(stack.pid(name)) for name in ("one", "two")) + "\\n")
            await running

        asyncio.run(main())
    """
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(script))
    pids = [int(pid) for pid in (await written(tmp_path / "pids")).split()]
    assert all(is_alive(pid) for pid in pids)
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_start_waits_for_what_an_earlier_one_has_left(tmp_path: Path) -> None:
    stack = Stack(tmp_path, [service("old", code="import time; time.sleep(0.3)")])
    async with stack.running():
        status = stack.supervisor.statuses["old"]
        await predecessors.outlive([status])
        assert status.pid is not None
        assert born(status.pid) != status.born


async def test_a_stranger_with_the_pid_of_an_earlier_service_is_left_alone(tmp_path: Path) -> None:
    stack = Stack(tmp_path, [service("stranger")])
    async with stack.running():
        pid = stack.pid("stranger")
        await predecessors.outlive([ServiceStatus("old", State.UP, pid=pid, born=1)])
        assert is_alive(pid)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - other processes fulfil it
            await asyncio.sleep(0.01)


async def written(path: Path) -> str:
    """The line that a process of the test writes into a file, once it is there."""

    def line() -> str:
        return path.read_text() if path.exists() else ""

    await until(lambda: line().endswith("\n"))
    return line()


def children() -> list[int]:
    """Processes this one has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found
