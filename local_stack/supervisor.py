"""Starts services in the order of their needs, keeps them running, stops them in order. Knows nothing of Tollgate's own.

A service that does not start ends the start. One that ends later is started again, after a pause that grows.
"""

import asyncio
import dataclasses
from asyncio.subprocess import Process
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from gateway_core.clock import Monotonic
from local_stack.process import StartError, kill, run, spawn, stop, until_ready
from local_stack.service import Service, Task
from local_stack.state import ServiceStatus, State, TaskState, born

STOP_DEADLINE_S = 4.5
"""For everything together; what is left then is killed."""

RESTART_PAUSE_S = 1.0
RESTART_PAUSE_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
"""A service that ran for this long starts again with the shortest pause."""

Changed = Callable[[ServiceStatus], None]
TaskChanged = Callable[[str, TaskState], None]


class Supervisor:
    """One stack of services, from its start to its stop."""

    def __init__(
        self,
        services: Sequence[Service],
        tasks: Sequence[Task],
        *,
        log: Callable[[str], Path],
        changed: Changed,
        task_changed: TaskChanged,
        now: Monotonic,
    ) -> None:
        self._services = services
        self._tasks = tasks
        self._log = log
        self._changed = changed
        self._task_changed = task_changed
        self._now = now
        self._processes: dict[str, Process] = {}
        names = [service.name for service in services] + [task.name for task in tasks]
        self._done = {name: asyncio.Event() for name in names}
        self.statuses = {service.name: ServiceStatus(service.name, ports=service.ports) for service in services}

    async def run(self, stopping: asyncio.Event, hurry: asyncio.Event, ready: Callable[[], None]) -> None:
        """Start everything, call `ready` once, keep it running until `stopping` is set, stop everything.

        Set as well, `hurry` kills what the stop still waits for.

        Raises:
            StartError: a service or task did not start. What had started is stopped by then.
        """
        keeping = asyncio.create_task(self._keep_all(ready), name="keep services")
        asked = asyncio.create_task(stopping.wait(), name="wait for the signal to stop")
        hurrying = asyncio.create_task(self._kill_when(hurry), name="wait for the signal to hurry")
        try:
            await asyncio.wait({keeping, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            asked.cancel()
            await asyncio.wait({keeping, asked})
            await self._stop_all()
            hurrying.cancel()
        if not keeping.cancelled():
            keeping.result()

    async def _kill_when(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        for process in self._processes.values():
            if process.returncode is None:
                kill(process)

    async def _keep_all(self, ready: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services:
                    group.create_task(self._keep(service), name=f"keep {service.name}")
                for task in self._tasks:
                    group.create_task(self._perform(task), name=f"perform {task.name}")
                await self._all_done(self._done)
                ready()
        except* StartError as failures:
            raise failures.exceptions[0] from None

    async def _all_done(self, names: Iterable[str]) -> None:
        for name in names:
            await self._done[name].wait()

    async def _perform(self, task: Task) -> None:
        if not task.is_done:
            await self._all_done(task.needs)
            self._task_changed(task.name, TaskState.RUNNING)
            try:
                await run(task.name, task.command, self._log(task.name))
            except StartError:
                self._task_changed(task.name, TaskState.FAILED)
                raise
            self._task_changed(task.name, TaskState.DONE)
        self._done[task.name].set()

    async def _keep(self, service: Service) -> None:
        await self._all_done(service.needs)
        pause_s = RESTART_PAUSE_S
        while True:
            began_s = self._now()
            try:
                await self._live(service)
            except StartError:
                if not self._done[service.name].is_set():
                    self._become(service, state=State.FAILED)
                    raise
            await self._end(service, service.stop_grace_s)
            if self._now() - began_s >= HEALTHY_AFTER_S:
                pause_s = RESTART_PAUSE_S
            restarts = self.statuses[service.name].restarts + 1
            self._become(service, state=State.RESTARTING, pid=None, born=None, restarts=restarts)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_PAUSE_MAX_S)

    async def _live(self, service: Service) -> None:
        """One life of a service, from its preparation to its unexpected end."""
        self._become(service, state=State.STARTING)
        log = self._log(service.name)
        try:
            await service.prepare()
            process = self._processes[service.name] = await spawn(service.command, log)
        except OSError as error:
            raise StartError(f"{service.name} could not be started: {error}") from error
        self._become(service, pid=process.pid, born=born(process.pid))
        await until_ready(service.name, process, service.ready, log)
        self._become(service, state=State.UP)
        self._done[service.name].set()
        await process.wait()

    async def _end(self, service: Service, grace_s: float) -> None:
        if (process := self._processes.get(service.name)) is not None:
            await stop(process, service.stop_signal, grace_s)
            del self._processes[service.name]

    async def _stop_all(self) -> None:
        deadline_s = self._now() + STOP_DEADLINE_S
        by_stage = sorted(self._services, key=lambda service: service.stop_stage)
        for _, stage in groupby(by_stage, key=lambda service: service.stop_stage):
            await asyncio.gather(*(self._stop(service, deadline_s) for service in stage))

    async def _stop(self, service: Service, deadline_s: float) -> None:
        await self._end(service, min(service.stop_grace_s, max(0.0, deadline_s - self._now())))
        if self.statuses[service.name].state is not State.WAITING:
            self._become(service, state=State.DOWN, pid=None, born=None)

    def _become(self, service: Service, **changes: Any) -> None:
        status = dataclasses.replace(self.statuses[service.name], **changes)
        self.statuses[service.name] = status
        self._changed(status)
