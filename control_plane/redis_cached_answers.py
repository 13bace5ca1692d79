"""Forgetting the answers that response_cache keeps for an organisation, in Redis (or Valkey), where it keeps them."""

from typing import Final

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from control_plane.errors import CachedAnswersUnavailableError, ConflictError
from gateway_core.contract import cache_generation

TIMEOUT_S: Final = 0.5


class RedisCachedAnswers:
    """Those of all organisations."""

    def __init__(self, url: SecretStr | None) -> None:
        self._redis = (
            None
            if url is None
            else Redis.from_url(url.get_secret_value(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        )

    async def forget(self, org_id: str) -> None:
        """No answer from before is told again; what they take goes when its time is over or room is needed.

        Raises:
            ConflictError: this installation keeps none, as far as is known here.
            CachedAnswersUnavailableError: Redis does not answer.
        """
        if self._redis is None:
            raise ConflictError("No answers are cached here: the control plane has no TOLLGATE_REDIS_URL.")
        try:
            await self._redis.incr(cache_generation(org_id))
        except (RedisError, OSError, TimeoutError) as error:
            raise CachedAnswersUnavailableError from error

    async def close(self) -> None:
        """Give the connections back."""
        if self._redis is not None:
            await self._redis.aclose()
