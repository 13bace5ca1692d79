"""What is compared: something that answers chat completions, and the processes it consists of."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from bench import peers
from bench.bare_envoy import bootstrap
from bench.keys import add_keys
from bench.load import Load
from bench.processes import data_path, data_path_and_cache, everything, find_pid
from local_stack.envoy import running_envoy
from local_stack.ports import free_port
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

BARE: Final = "bare Envoy"
PATH: Final = "/v1/chat/completions"
PER_MINUTE: Final = ("requests_per_minute_max", "tokens_per_minute_max")
AT_ONCE: Final = (*PER_MINUTE, "concurrency_max")
"""Where this is limited, every request is asked about."""


@dataclass(frozen=True)
class Workload:
    """A kind of request."""

    name: str
    model: str
    events: int = 0
    body_bytes: int = 900

    def body(self, model: str) -> bytes:
        """What is sent, under the name that a candidate has for the model."""
        stream = {"stream": True} if self.events else {}
        message = {"role": "user", "content": "x" * self.body_bytes}
        return json.dumps({"model": model, **stream, "max_tokens": 16, "messages": [message]}).encode()


UNARY: Final = Workload("1 KB, unary", "mock-0")
SHORT_STREAM: Final = Workload("stream of 20 events", "mock-20", events=20)
LONG_STREAM: Final = Workload("stream of 200 events", "mock-200", events=200)
WORKLOADS: Final = (UNARY, SHORT_STREAM, LONG_STREAM)


@dataclass(frozen=True)
class Candidate:
    """Something that answers.

    Attributes:
        authorizations: one after the other, over and over.
        prefix: of a model's name.
        only_unary: whether it is of no interest with streams.
    """

    name: str
    port: int
    authorizations: Sequence[str] = ("Bearer none",)
    pids: Sequence[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = PATH
    prefix: str = ""
    only_unary: bool = False
    says: str = ""

    def load(self, workload: Workload) -> Load:
        """The request of this kind as this candidate takes it."""
        body = workload.body(self.prefix + workload.model)
        return Load(self.port, self.path, self.authorizations, body, self.headers)


@asynccontextmanager
async def running_provider() -> AsyncIterator[int]:
    """The provider behind all of them, in a process of its own; its port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.upstream", str(port))
    try:
        while not await _answers(port):  # noqa: ASYNC110 - it waits for another process
            await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def running_bare_envoy(directory: Path, provider_port: int) -> AsyncIterator[Candidate]:
    """Envoy with one route, one cluster and no filter."""
    port = free_port()
    async with running_envoy(directory, bootstrap(port, provider_port)):
        yield Candidate(BARE, port, pids=(find_pid("envoy", str(directory / "envoy.json")),))


async def sell_mock_models(stack: Stack, provider_port: int) -> None:
    """Have the gateway offer the models of the provider."""
    await add_provider(stack, "mock", f"http://127.0.0.1:{provider_port}/v1", "sk-of-the-provider")
    for workload in WORKLOADS:
        await add_model(stack, workload.model, [("mock", workload.model)])
    await wait_until_routed(stack, WORKLOADS[-1].model)


async def tollgate_candidates(stack: Stack, *, cold_keys: int) -> Sequence[Candidate]:
    """The gateway in each of the ways that matter, on one stack that offers the models."""
    pids: Mapping[str, int] = stack.endpoints["pids"]
    port = stack.ports["gateway"]
    key = f"Bearer {await stack.make_key('bench', balance='1000000')}"
    wants_kept = {"x-tollgate-cache": "on"}
    await _ask_to_keep(port, {"Authorization": key, **wants_kept})
    cold = [f"Bearer {each}" for each in await add_keys(stack, "cold", cold_keys)]
    per_minute, at_once = [f"Bearer {await _limited_key(stack, limits)}" for limits in (PER_MINUTE, AT_ONCE)]
    return (
        Candidate("Tollgate, data path", port, [key], data_path(pids), says="Envoy and ext_authz, one busy key"),
        Candidate(
            "Tollgate, data path, cold keys",
            port,
            cold,
            data_path(pids),
            says=f"each request another one of {cold_keys:,} keys",
        ),
        Candidate(
            "Tollgate, data path, answer was cached",
            port,
            [key],
            data_path_and_cache(pids),
            headers=wants_kept,
            only_unary=True,
            says="Valkey and response_cache beside them",
        ),
        Candidate(
            "Tollgate, everything",
            port,
            [key],
            everything(pids),
            says="and Postgres, spool, sink, ledger, ClickHouse, Valkey: holds, metering, charges",
        ),
        Candidate("Tollgate, everything, cold keys", port, cold, everything(pids)),
        Candidate("Tollgate, everything, limits per minute", port, [per_minute], everything(pids)),
        Candidate(
            "Tollgate, everything, limits at once",
            port,
            [at_once],
            everything(pids),
            only_unary=True,
            says="each request is asked about",
        ),
    )


async def _ask_to_keep(port: int, headers: Mapping[str, str]) -> None:
    """Have the answer cached that all rounds ask for."""
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", raise_for_status=True) as session,
        session.post(PATH, data=UNARY.body(UNARY.model), headers=headers) as response,
    ):
        await response.read()


async def _limited_key(stack: Stack, which: Sequence[str]) -> str:
    """A key with limits that none of these requests reaches."""
    url = f"{stack.endpoints['control_plane_url']}/api/v1/orgs/org_demo/keys"
    limits = dict.fromkeys(which, 1_000_000_000)
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(url, json={"name": "bench", **limits}, headers=headers) as response,
    ):
        key: str = (await response.json())["key"]
        return key


@asynccontextmanager
async def running_peers(wanted: Sequence[str], provider_port: int) -> AsyncIterator[Sequence[Candidate]]:
    """Other gateways in front of the same provider, installed where they are not."""
    async with AsyncExitStack() as running:
        found = []
        for peer in peers.PEERS:
            if peer.name not in wanted:
                continue
            await peers.install(peer)
            answering = await running.enter_async_context(peers.running_peer(peer, provider_port))
            found.append(
                Candidate(
                    peer.name,
                    answering.port,
                    [f"Bearer {peers.KEY}"],
                    (answering.pid,),
                    headers=peer.headers(provider_port),
                    path=peer.path,
                    prefix=peer.prefix,
                    says=f"{' '.join((*peer.packages, *map('@'.join, peer.node_packages.items())))}: {peer.has}",
                )
            )
        yield found
