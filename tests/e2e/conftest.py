"""What most files here ask the gateway with: the demo's key, in OpenAI's client and in plain HTTP."""

from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest_asyncio

from tests.support.stack import Stack


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own, which tries nothing twice."""
    async with openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


@pytest_asyncio.fixture(loop_scope="session")
async def session(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    """Plain HTTP."""
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as created:
        yield created
