"""Postgres is down for a while: who is known goes on, nothing passes unmetered, and afterwards everything settles."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import aiohttp

from bench.chaos import books
from bench.chaos.load import Customer, Load, served_again_s
from bench.chaos.rounds import SCARCE_USD, Customers, account_for
from bench.chaos.verdict import Verdict
from gateway_core.contract import Peer
from local_stack import tollgate_services
from local_stack.data_directory import DataDirectory
from local_stack.ports import free_port
from tests.support.stack import Stack, eventually

AROUND_S: Final = 2.0
NOTICED_S: Final = 0.5
"""A moment after the kill, what was asked of Postgres before it may still be answered."""
BACK_S_MAX: Final = 60.0
_UNAVAILABLE: Final = 503
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Outage:
    """What it did to whom.

    Attributes:
        seconds: how long there was no Postgres at all.
        served: requests answered during it, from slices.
        refused: requests refused during it.
        refused_of_plenty: of those, to organisations whose slices last.
        unmetered: served to an organisation that has no slice.
        served_s: from its end until everybody was served again.
        newcomer_exit: how a process of ext_authz ended that was started meanwhile.
        is_configuration_kept: whether Envoy has what it had.
        api: what the API answered: status, content type, Retry-After.
        stranger: what a key was answered that had never been used before.
    """

    seconds: float
    served: int
    refused: int
    refused_of_plenty: int
    unmetered: int
    served_s: float
    newcomer_exit: int
    is_configuration_kept: bool
    api: tuple[int, str, str | None]
    stranger: int
    verdict: Verdict

    @property
    def is_good(self) -> bool:
        """Known keys went on from their slices, nobody else passed, and everything is accounted for."""
        status, content_type, retry_after = self.api
        return (
            self.verdict.is_good
            and self.served > 0
            and not self.refused_of_plenty
            and not self.unmetered
            and self.stranger == _UNAVAILABLE
            and self.newcomer_exit != 0
            and self.is_configuration_kept
            and (status, content_type) == (_UNAVAILABLE, "application/problem+json")
            and retry_after is not None
        )


async def outage(stack: Stack, load: Load, customers: Customers, seconds: float) -> Outage:
    """Take Postgres away for so long under load, and look everything through.

    Raises:
        WrongBooksError: something is in the books that must not be.
    """
    await books.fill_up(stack, customers.scarce.org_id, SCARCE_USD)
    # Nobody has ever used it: no process knows it.
    stranger = Customer("org_stranger", await stack.make_key("stranger", balance="1"))
    configuration, begin = await _configuration(stack), len(load.seen)
    async with load.running():
        await asyncio.sleep(AROUND_S)
        async with _no_postgres(stack):
            began_s = monotonic()
            newcomer = asyncio.create_task(_start_ext_authz(stack), name="start an ext_authz")
            stranger_status = await _ask(stack, stranger)
            api = await _ask_the_api(stack)
            newcomer_exit = await newcomer
            await asyncio.sleep(began_s + seconds - monotonic())
            kept = await _configuration(stack) == configuration
            ended_s = monotonic()

        async def is_served() -> bool:
            return any(
                each.org_id == customers.scarce.org_id and each.began_s > ended_s and not each.is_refused
                for each in load.seen[begin:]
            )

        await eventually(is_served, deadline_s=BACK_S_MAX)
        await asyncio.sleep(AROUND_S)
    seen = load.seen[begin:]
    during = [each for each in seen if began_s + NOTICED_S < each.began_s and each.ended_s < ended_s]
    return Outage(
        seconds=ended_s - began_s,
        served=sum(each.status == _OK for each in during),
        refused=sum(each.is_refused for each in during),
        refused_of_plenty=sum(
            each.is_refused and each.org_id in (customers.wealthy.org_id, customers.playing.org_id) for each in during
        ),
        unmetered=sum(each.status == _OK and each.org_id == customers.scarce.org_id for each in during),
        served_s=served_again_s(seen, ended_s),
        newcomer_exit=newcomer_exit,
        is_configuration_kept=kept,
        api=api,
        stranger=stranger_status,
        verdict=await account_for(stack, seen),
    )


@asynccontextmanager
async def _no_postgres(stack: Stack) -> AsyncIterator[None]:
    """Postgres is dead while the block runs, and nobody starts it again: the supervisor stands still meanwhile."""
    supervisor = stack.supervisor
    os.kill(supervisor, signal.SIGSTOP)
    try:
        stack.kill("postgres")
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)


async def _start_ext_authz(stack: Stack) -> int:
    """Start one as the stack does, beside it; returns its exit code."""
    directory = DataDirectory.at(stack.data_dir)
    ports = {**stack.ports, "ext_authz": free_port(), "ext_authz_metrics": free_port()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", Peer.EXT_AUTHZ),
        env={**os.environ, **tollgate_services.service_environment(directory, ports)},
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        return await asyncio.wait_for(process.wait(), BACK_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ask(stack: Stack, customer: Customer) -> int:
    body = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Tell me."}]}
    headers = {"Authorization": f"Bearer {customer.key}"}
    async with (
        aiohttp.ClientSession(stack.url, headers=headers) as session,
        session.post("/v1/chat/completions", json=body) as response,
    ):
        return response.status


async def _ask_the_api(stack: Stack) -> tuple[int, str, str | None]:
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with (
        aiohttp.ClientSession(stack.endpoints["control_plane_url"], headers=headers) as session,
        session.get("/api/v1/providers") as response,
    ):
        return response.status, response.content_type, response.headers.get("Retry-After")


async def _configuration(stack: Stack) -> Any:
    """What Envoy has been told, without when."""
    url = f"{stack.endpoints['envoy_admin_url']}/config_dump"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return _without_times(await response.json())


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_times(item) for name, item in value.items() if name != "last_updated"}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
