"""What a newcomer does: start, paste what was printed, stop, start again, start a second one beside it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from tests.support.stack import Stack, running_stack

SECOND_START_S = 20.0
STOP_S = 10.0
"""Bounds against hanging, no benchmark: on an idle machine it is about 3 s and 1 s, and tests share theirs."""


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def run(*command: str) -> str:
    """Run a command; its standard output."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()
    return output.decode()


def printed(stack: Stack) -> str:
    """What `tollgate up` has written to the terminal."""
    return (stack.data_dir.parent / f"{stack.data_dir.name}.out").read_text()


async def test_the_printed_curl_line_and_python_snippet_work_when_pasted(stack: Stack) -> None:
    lines = printed(stack).splitlines()
    [curl] = [line for line in lines if line.startswith("curl ")]
    assert json.loads(await run("bash", "-c", curl))["choices"][0]["message"]["content"]
    start = lines.index("from openai import OpenAI")
    snippet = "\n".join(lines[start : lines.index("", start)])
    assert (await run(sys.executable, "-c", snippet)).strip()


async def test_the_printed_commands_show_the_latest_charge_and_the_request_in_clickhouse(stack: Stack) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body, headers=stack.headers) as response,
    ):
        request_id = response.headers["x-request-id"]
    row = await stack.clickhouse_row(request_id)
    [psql] = [line for line in printed(stack).splitlines() if "tollgate psql " in line]
    [clickhouse] = [line for line in printed(stack).splitlines() if "tollgate clickhouse " in line]
    for shown in (await run("bash", "-c", psql), await run("bash", "-c", clickhouse)):
        assert request_id in shown
        assert str(row["price_nano_usd"]) in shown


async def test_endpoints_json_has_everything_a_program_needs(stack: Stack) -> None:
    endpoints = stack.endpoints
    assert {
        *("openai_base_url", "anthropic_base_url", "api_key", "control_plane_url", "operator_token", "postgres_dsn"),
        *("redis_url", "clickhouse_url", "envoy_admin_url", "simulator_url", "spool_dir", "pids"),
    } <= set(endpoints)
    assert {
        *("postgres", "valkey", "clickhouse", "envoy"),
        *("control_plane", "ext_authz", "billing_sink", "translator", "response_cache", "simulator"),
    } == set(endpoints["pids"])
    assert all(is_alive(pid) for pid in endpoints["pids"].values())
    assert (stack.data_dir / "endpoints.json").stat().st_mode & 0o077 == 0
    for word in (endpoints["openai_base_url"], endpoints["api_key"], endpoints["operator_token"]):
        assert word in printed(stack)


async def test_status_shows_every_service(stack: Stack) -> None:
    status = json.loads(
        await run(sys.executable, "-m", "tollgate", "status", "--json", "--data-dir", str(stack.data_dir))
    )
    assert {service["name"]: service["state"] for service in status["services"]} == dict.fromkeys(
        stack.endpoints["pids"], "up"
    )


async def test_only_an_operator_sees_the_nodes(stack: Stack) -> None:
    url = f"{stack.endpoints['control_plane_url']}/api/v1/nodes"
    async with aiohttp.ClientSession() as session:
        for token in ("", stack.endpoints["api_key"]):
            async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == 401
        headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
        async with session.get(url, headers=headers) as response:
            [node] = (await response.json())["data"]
    assert node["id"] == "local-1"
    assert set(node["types"]) == {"Cluster", "Secret", "Listener", "RouteConfiguration"}
    assert all(kind["accepted_version"] and not kind["rejection"] for kind in node["types"].values())


async def test_a_second_stack_lives_beside_the_first_stops_in_time_and_finds_its_data_again(
    stack: Stack, tmp_path: Path
) -> None:
    # The name is one that a careless program misreads.
    directory = tmp_path / r"""a second, 'ü' "q" #h ?a=b&c [*] \b"""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
    async with running_stack(directory) as second:
        assert second.url != stack.url
        key, pids = second.endpoints["api_key"], dict(second.endpoints["pids"])
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{second.url}/v1/chat/completions", json=body, headers=second.headers) as response,
        ):
            request_id = response.headers["x-request-id"]
        # Not waited for: what Envoy has seen is in the ledger when the stack has stopped.
        began = time.monotonic()
        os.kill(int((directory / "lock").read_text()), signal.SIGINT)
        while any(is_alive(pid) for pid in pids.values()):
            assert time.monotonic() - began < STOP_S
            await asyncio.sleep(0.02)
        # The supervisor itself is still the child of this test for a moment.

    began = time.monotonic()
    async with running_stack(directory) as again:
        assert time.monotonic() - began < SECOND_START_S
        assert again.endpoints["api_key"] == key
        async with again.database() as database:
            outcome = await database.fetchval("SELECT outcome FROM billing.requests WHERE request_id = $1", request_id)
        assert outcome == "settled"
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{again.url}/v1/chat/completions", json=body, headers=again.headers) as response,
        ):
            assert response.status == 200


async def test_two_on_one_directory_is_refused_and_the_first_lives_on(stack: Stack) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollgate", "up", "--data-dir", str(stack.data_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert (stack.data_dir / "lock").read_text().strip() in output.decode()
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/v1/models", headers=stack.headers) as got:
        assert got.status == 200
