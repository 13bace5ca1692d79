"""Threads for one purpose, so that what is slow for one reason keeps nothing else waiting."""

from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager


@asynccontextmanager
async def threads(number: int, name: str) -> AsyncIterator[Executor]:
    """Threads until the block ends; what has not begun by then is not done."""
    with ThreadPoolExecutor(number, name) as threads:
        try:
            yield threads
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
