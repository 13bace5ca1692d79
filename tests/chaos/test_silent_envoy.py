"""An Envoy that stands still: edits go on without it, it is seen, and it counts again once it answers."""

import os
import secrets
import signal
from typing import Any

import aiohttp

from tests.support.stack import Stack, eventually


async def test_an_envoy_that_is_stopped_holds_up_no_edit_for_long_and_has_them_all_when_it_goes_on(
    stack: Stack,
) -> None:
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    url = f"{stack.endpoints['control_plane_url']}/api/v1/"
    name = f"silent-{secrets.token_hex(4)}"
    provider = {"kind": "openai", "base_url": f"{stack.simulator_url}/v1"}
    async with aiohttp.ClientSession(url, headers=headers, raise_for_status=True) as session:

        async def get(path: str) -> dict[str, Any]:
            async with session.get(path) as response:
                return dict(await response.json())

        async def edited(number: int, wait_ms: int) -> dict[str, Any]:
            body = {**provider, "requests_max": number}
            async with session.put(
                f"providers/{name}", json=body, headers={"If-Match": "*"} if number > 1 else {}
            ) as made:
                operation = await made.json()
            return await get(f"operations/{operation['id']}?wait_ms={wait_ms}")

        async def nodes() -> list[dict[str, Any]]:
            return list((await get("nodes"))["data"])

        first = await edited(1, 10_000)
        assert (first["state"], first["nodes"]) == ("applied", 1)
        pid = int(stack.endpoints["pids"]["envoy"])
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = await edited(2, 3000)
            assert (waiting["state"], waiting["waiting_for"]) == ("pending", ["local-1"])
            # It is there, as far as TCP knows; after a while it is not waited for.
            without = await get(f"operations/{waiting['id']}?wait_ms=15000")
            assert (without["state"], without["nodes"]) == ("applied", 0)
            assert [node["silent"] for node in await nodes()] == [True]

            # It is hung up on, and what follows waits for nobody.
            async def is_gone() -> bool:
                return await nodes() == []

            await eventually(is_gone, deadline_s=25)
            assert (await edited(3, 3000))["state"] == "applied"
        finally:
            os.kill(pid, signal.SIGCONT)

        async def is_back() -> bool:
            return [node["silent"] for node in await nodes()] == [False]

        await eventually(is_back)
        last = await edited(4, 10_000)
        assert (last["state"], last["nodes"]) == ("applied", 1)
        [node] = await nodes()
        assert node["accepted_revision"] >= last["revision"]
