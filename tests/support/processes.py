"""Our services as processes of their own, for tests that need one beside the stack."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

START_DEADLINE_S = 20


@asynccontextmanager
async def running_python(module: str, *, ready: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m module` until the block ends; begins when the URL `ready` answers 200."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module), env={**os.environ, **environment}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_DEADLINE_S):
            while not await _answers(session, ready):
                assert process.returncode is None, f"{module} ended with {process.returncode}"
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
