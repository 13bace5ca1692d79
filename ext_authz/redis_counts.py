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

from ext_authz.shared_counts import AT_ONCE_MAX, CountsUnavailableError

TIMEOUT_S: Final = 0.25

_SCRIPTS: Final = Path(__file__).parent / "scripts"


def connect(url: SecretStr) -> Redis:
    """A pool of connections. None is made before it is wanted."""
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=AT_ONCE_MAX,
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
    """Where one connection has broken, the idle ones have too: left there, each would fail once more when Redis is long back.

    Raises:
        CountsUnavailableError: it is down or slow.
    """
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        if isinstance(error, RedisConnectionError):
            await redis.connection_pool.disconnect(inuse_connections=False)
        raise CountsUnavailableError(type(error).__name__) from error
