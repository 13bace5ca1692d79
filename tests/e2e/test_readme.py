"""The lines of the README, as a newcomer pastes them: what it promises about a user, a provider and a model of one's own."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import SETTLE_DEADLINE_S, Stack, eventually

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENDPOINTS = (ROOT / "docs" / "ENDPOINTS.md").read_text(encoding="utf-8")
PLACE_OF_VALUE = {
    "TOKEN": "access_token",
    "KEY": "key",
    "ORG": "organization.id",
    "CHECKOUT": "checkout_url",
    "RESPONSE": "id",
    "FILE": "id",
    "BATCH": "id",
    "OUTPUT": "output_file_id",
}
"""Where each variable that the reader fills in is found in the answers above it."""


def blocks(title: str, text: str = README) -> list[str]:
    """The shell blocks of a section."""
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def statements(block: str) -> list[str]:
    """The commands of a block: one that ends in a backslash or within quotes goes on in the next line."""
    found, pending = [], ""
    for line in block.splitlines():
        pending += line if not pending else f"\n{line}"
        if not line.endswith("\\") and pending.count("'") % 2 == 0:
            found.append(pending)
            pending = ""
    return found


class Shell:
    """Runs commands one after the other, with the variables that the reader would have set by then."""

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self._directory = directory
        self._variables = dict(variables)
        self.answers: list[dict[str, Any]] = []

    async def run(self, command: str) -> str:
        """What a command prints; it must succeed."""
        if assignment := re.match(r"(\w+)=\.\.\.", command):
            self._variables[assignment[1]] = self._value(PLACE_OF_VALUE[assignment[1]])
            return ""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", command),
            cwd=self._directory,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **self._variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (command, out, err)
        if command.startswith("curl") and out:
            answer = json.loads(out)
            assert not answer.get("error"), (command, answer)
            assert not isinstance(answer.get("status"), int), (command, answer)
            self.answers.append(answer)
        return out.decode()

    def _value(self, path: str) -> str:
        for answer in reversed(self.answers):
            found: Any = answer
            for name in path.split("."):
                found = found.get(name) if isinstance(found, dict) else None
            if isinstance(found, str):
                return found
        raise AssertionError(f"no answer has {path}")


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Shell:
    (tmp_path / ".tollgate").symlink_to(stack.data_dir)
    return Shell(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state")})


async def exported(shell: Shell) -> dict[str, str]:
    """The variables that `tollgate env` is there for."""
    lines = (await shell.run("tollgate env")).splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


async def test_a_user_of_ones_own(tmp_path: Path, shell: Shell) -> None:
    shell = Shell(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state"), **await exported(shell)})
    environment, *curls = blocks("A user of your own")
    assert environment == 'eval "$(tollgate env)"\n'
    for block in curls[:-1]:
        for command in statements(block):
            await shell.run(command)
    asked, balance, history = shell.answers[-3:]
    assert asked["choices"][0]["message"]["content"]
    assert balance["currency"] == "USD"
    assert "credit" in {each["kind"] for each in history["data"]}

    await shell.run("printf 'correct horse battery\\n' | tollgate login --email ada@example.com")
    made = json.loads(await shell.run("tollgate keys create --name laptop --models-allowed 'gpt-*' --json"))
    for command in statements(curls[-1])[2:]:
        await shell.run(command.replace("KEY_ID", made["id"]))


async def test_money_from_the_command_line(tmp_path: Path, shell: Shell) -> None:
    [block] = blocks("Money")
    printed = {command.split("#")[0].strip(): await shell.run(command) for command in statements(block)}
    assert "available" in printed["tollgate balance get"]
    assert "books" in printed["tollgate books verify"]
    assert (tmp_path / "draft.pdf").read_bytes().startswith(b"%PDF")


async def test_a_provider_and_a_model_of_ones_own(tmp_path: Path, shell: Shell) -> None:
    variables = await exported(shell)
    shell = Shell(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state"), **variables})
    by_hand, as_file = blocks("A provider and a model of your own")
    for command in statements(by_hand):
        await shell.run(command.replace("Hello", "Hello [[sim cached_tokens=1 reasoning_tokens=2]]"))
    assert shell.answers[-1]["choices"][0]["message"]["content"]
    request = "SELECT outcome FROM billing.requests WHERE model = 'small'"

    async def outcome() -> str:
        return (await shell.run(f'tollgate psql -Atc "{request}"')).strip()

    assert await eventually(outcome, deadline_s=SETTLE_DEADLINE_S) == "settled"

    export, diff, *_ = statements(as_file)
    await shell.run(export)
    await shell.run(diff)


async def test_every_endpoint_can_be_tried_on_the_demo(tmp_path: Path, shell: Shell) -> None:
    shell = Shell(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state"), **await exported(shell)})
    models, responses, batch, session = blocks("Try it", ENDPOINTS)
    for command in [*statements(models), *statements(responses)]:
        await shell.run(command)
    kept, read, _, generated = shell.answers[-4:]
    assert read["id"] == kept["id"]
    assert generated["candidates"]
    for command in statements(batch):
        await shell.run(command)
    assert shell.answers[-2]["status"] == "completed"
    assert shell.answers[-1]["custom_id"] == "one"
    [talk] = statements(session)
    events = [json.loads(line)["type"] for line in (await shell.run(talk)).splitlines()]
    assert (events[0], events[-1]) == ("session.created", "response.done")
    assert "response.output_text.delta" in events
