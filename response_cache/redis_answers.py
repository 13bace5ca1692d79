"""Answers in Redis (or Valkey), and whose turn it is to get one, for all processes together. One script, and so one moment, per question.

All keys have one hash tag: a cluster keeps them in one place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from gateway_core.contract import CACHE_KEYS, cache_generation
from gateway_core.ids import OrgId

TIMEOUT_S: Final = 0.2
"""Less than Envoy waits for us."""
CONNECTIONS_MAX: Final = 32
TURN_S: Final = 5.0
"""After so long without a word a turn is over: whoever had it has died."""
NOT_CACHED_S: Final = 1.0
"""For so long whoever asks the same is not made to wait in vain."""
ENTRY_BYTES: Final = 768
"""What an answer takes beside its own bytes."""

AnswersTrouble = (RedisError, OSError, TimeoutError)
"""What a Redis that is down or slow raises."""

_SCRIPTS: Final = Path(__file__).parent / "scripts"
_ORDER: Final = CACHE_KEYS + "order"
_SIZES: Final = CACHE_KEYS + "sizes"


class Missing(Enum):
    """What there is in the place of an answer."""

    MY_TURN = 1
    ANOTHERS_TURN = 2
    NOT_CACHED = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer is cached: under the question's name, in the organisation's generation; and whose turn it is."""

    org_id: OrgId
    name: str
    generation: str
    token: str

    @property
    def key(self) -> str:
        """Organisation, name and generation; the scripts read from it whose it is."""
        return f"{self.org_id}:{self.name}:{self.generation}"

    @property
    def turn(self) -> str:
        """The key of the turn."""
        return f"{CACHE_KEYS}turn:{self.key}"


class RedisAnswers:
    """Asks Redis. Every method raises one of `AnswersTrouble` if it does not answer in time."""

    def __init__(self, url: SecretStr, *, bytes_max: int, org_bytes_max: int) -> None:
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._bytes_max = bytes_max
        self._org_bytes_max = org_bytes_max
        self._look, self._keep, self._turn = (
            self._redis.register_script((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("look", "keep", "turn")
        )

    async def look(self, org_id: OrgId, name: str, token: str) -> tuple[Place, bytes | Missing]:
        """An answer as it was cached, or what there is instead; if nobody has the turn, it is then the caller's."""
        generation, found = await self._look(
            keys=[cache_generation(org_id), _ORDER, _order_of(org_id)],
            args=[CACHE_KEYS, f"{org_id}:{name}", token, int(TURN_S * 1000)],
        )
        place = Place(org_id, name, generation.decode(), token)
        return place, found if isinstance(found, bytes) else Missing(found)

    async def keep(self, place: Place, answer: bytes, ttl_s: int) -> int:
        """Keep an answer, which ends the turn; returns how many others made room for it."""
        gone: int = await self._keep(
            keys=[_ORDER, _SIZES],
            args=[
                *(CACHE_KEYS, place.key, place.token, answer, ttl_s * 1000),
                *(self._bytes_max, self._org_bytes_max, ENTRY_BYTES),
            ],
        )
        return gone

    async def discard(self, place: Place) -> None:
        """Throw an answer away."""
        await self._redis.delete(f"{CACHE_KEYS}answer:{place.key}")

    async def end_turn(self, place: Place) -> None:
        """Nobody gets an answer: it is the next one's turn."""
        await self._turn(keys=[place.turn], args=[place.token, "end", 0])

    async def say_not_cached(self, place: Place) -> None:
        """There was an answer, and it is not to be cached."""
        await self._turn(keys=[place.turn], args=[place.token, "-", int(NOT_CACHED_S * 1000)])

    async def stay(self, places: Iterable[Place]) -> None:
        """These turns go on."""
        for place in places:
            await self._turn(keys=[place.turn], args=[place.token, "stay", int(TURN_S * 1000)])

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


def _order_of(org_id: OrgId) -> str:
    """The order of one organisation's answers."""
    return f"{_ORDER}:{org_id}"
