"""The limits of keys, counted in Redis (or Valkey) for all processes together, in one atomic script per question."""

from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from ext_authz.reservations import Exceeded, Limit, Reservation, Room, Told
from gateway_core.ids import KeyId, RequestId
from gateway_core.limits import WINDOW_S, Limits

TIMEOUT_S: Final = 0.25
CONNECTIONS_MAX: Final = 16
OPEN_S: Final = 30
"""After so long without a word of it an open request is given up: its Envoy has died, which would have spoken of it every ten seconds."""

LimitsTrouble = (RedisError, OSError, TimeoutError)
"""What a Redis that is down or slow raises."""

_SCRIPTS: Final = Path(__file__).parent / "scripts"
_LIMIT_BY_CODE: Final = {1: Limit.REQUESTS, 2: Limit.TOKENS, 3: Limit.CONCURRENCY}


class RedisLimits:
    """Asks Redis. Every method raises one of `LimitsTrouble` if it does not answer in time."""

    def __init__(self, url: SecretStr, *, window_s: int = WINDOW_S, open_s: int = OPEN_S) -> None:
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            decode_responses=True,
        )
        self._redis = Redis.from_pool(pool)
        self._window_s = window_s
        self._open_s = open_s
        self._reserve, self._keep, self._finish = (
            self._redis.register_script((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("reserve", "keep", "finish")
        )

    async def reserve(
        self, key_id: KeyId, request_id: RequestId, limits: Limits, tokens: int
    ) -> Reservation | Exceeded:
        """Count a request as open and as so many tokens, if the limits admit it. Asked again, it counts once."""
        code, wait_s, at, requests, used_tokens, renews_in_s = await self._reserve(
            keys=_keys(key_id),
            args=[
                request_id,
                *(
                    -1 if limit is None else limit
                    for limit in (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
                ),
                tokens,
                self._open_s,
                self._window_s,
            ],
        )
        room = Room(limits, requests, used_tokens, renews_in_s)
        return Exceeded(_LIMIT_BY_CODE[code], wait_s, room) if code else Reservation(tokens, at, room)

    async def keep(self, key_id: KeyId, request_id: RequestId) -> None:
        """A request is still open."""
        await self._keep(keys=_keys(key_id), args=[request_id, self._open_s])

    async def finish(self, told: Told) -> None:
        """A request is over, and has used so many tokens. Told again, nothing changes."""
        await self._finish(
            keys=_keys(told.key_id), args=[told.request_id, told.at, told.expected, told.tokens, self._window_s]
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


def _keys(key_id: KeyId) -> list[str]:
    """Both in one slot of a cluster, by what stands in braces."""
    return [f"tollgate:limits:{{{key_id}}}:used", f"tollgate:limits:{{{key_id}}}:open"]
