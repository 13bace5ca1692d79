from pathlib import Path

import pytest

from local_stack.launch import Launch, parse


def test_command_line_is_read() -> None:
    launch = parse(
        ["--parent", "7", "--orphan-signal", "9", "--unprivileged", "/data", "--", "/bin/server", "--port", "1"]
    )
    assert launch == Launch(7, 9, Path("/data"), ("/bin/server", "--port", "1"))


def test_options_behind_the_dashes_belong_to_the_command() -> None:
    launch = parse(["--parent", "7", "--orphan-signal", "9", "--", "/bin/server", "--parent", "8"])
    assert launch == Launch(7, 9, None, ("/bin/server", "--parent", "8"))


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--parent", "7", "--orphan-signal", "9", "--"])
    assert "command" in capsys.readouterr().err
