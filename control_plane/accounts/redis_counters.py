"""The throttle's counters in Redis (or Valkey): one key per subject that goes away with its window."""

from typing import Final

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from control_plane.accounts.throttle import CountersUnavailableError

TIMEOUT_S: Final = 0.5
"""A log-in does not wait longer for a count."""


class RedisCounters:
    """`Counters` for all replicas together."""

    def __init__(self, url: SecretStr) -> None:
        self._redis = Redis.from_url(
            url.get_secret_value(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
        )

    async def add(self, key: str, window_s: int) -> tuple[int, int]:
        """Count one attempt."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(key, 0, ex=window_s, nx=True)  # type: ignore[unused-awaitable]  # queues
                pipeline.incr(key)  # type: ignore[unused-awaitable]  # queues
                pipeline.ttl(key)  # type: ignore[unused-awaitable]  # queues
                _, count, left_s = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise CountersUnavailableError(type(error).__name__) from error
        return int(count), max(1, int(left_s))

    async def forget(self, key: str) -> None:
        """Begin again at zero."""
        try:
            await self._redis.delete(key)
        except (RedisError, OSError, TimeoutError) as error:
            raise CountersUnavailableError(type(error).__name__) from error

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()
