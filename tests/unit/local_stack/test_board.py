"""What `endpoints.json` says while services die and come back."""

import json
from pathlib import Path

from local_stack.data_directory import DataDirectory
from local_stack.endpoints import Endpoints
from local_stack.stack import Provider, _Board
from local_stack.state import ServiceStatus, State, TaskState


class Nobody:
    def changed(self, status: ServiceStatus) -> None:
        pass

    def task_changed(self, name: str, state: TaskState) -> None:
        pass

    def ready(self, endpoints: Endpoints, providers: list[Provider]) -> None:
        pass

    def displaced(self, name: str, taken: int, port: int) -> None:
        pass

    def stopping(self) -> None:
        pass


def test_a_restarted_service_is_named_once_it_is_ready_itself(tmp_path: Path) -> None:
    directory = DataDirectory.at(tmp_path)
    directory.run.mkdir()
    board = _Board(directory, Endpoints("", "", "", "", [], "", "", "", "", "", "", "", ""), [], Nobody())

    def pids() -> dict[str, int]:
        return dict(json.loads(directory.endpoints.read_text())["pids"])

    board.changed(ServiceStatus("first", State.UP, pid=1))
    board.changed(ServiceStatus("second", State.UP, pid=2))
    board.ready()
    assert pids() == {"first": 1, "second": 2}
    # Both are killed; the second is ready before the first.
    board.changed(ServiceStatus("first", State.STARTING, pid=11))
    board.changed(ServiceStatus("second", State.UP, pid=12))
    assert pids() == {"first": 1, "second": 12}
    board.changed(ServiceStatus("first", State.UP, pid=11))
    assert pids() == {"first": 11, "second": 12}
