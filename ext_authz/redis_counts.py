"""Redis (or Valkey) as what is counted together is asked of it: connections, time-outs, scripts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

TIMEOUT_S: Final = 0.25
CONNECTIONS_MAX: Final = 16
"""Whoever asks waits for one (`shared_counts.py`): that many ask at once is no trouble of Redis's."""
OPEN_S: Final = 30
"""After so long without a word of it what is open is given up: its Envoy has died, which would have spoken of it every ten seconds."""

LimitsTrouble = (RedisError, OSError, TimeoutError)
"""What a Redis that is down or slow raises."""

_SCRIPTS: Final = Path(__file__).parent / "scripts"


def connect(url: SecretStr) -> Redis:
    """A pool of connections. None is made before it is wanted."""
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            decode_responses=True,
        )
    )


def script(redis: Redis, name: str) -> AsyncScript:
    """One of our scripts."""
    return redis.register_script((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))


@asynccontextmanager
async def reconnecting(redis: Redis) -> AsyncIterator[None]:
    """Where one connection has broken, the idle ones have too: left there, each would fail once more when Redis is long back."""
    try:
        yield
    except RedisConnectionError:
        await redis.connection_pool.disconnect(inuse_connections=False)
        raise
