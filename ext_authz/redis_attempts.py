"""Limits of providers, counted in Redis (or Valkey) for all processes together, in one atomic script per attempt."""

from collections.abc import Callable
from typing import assert_never

from pydantic import SecretStr

from ext_authz.attempts import (
    KEPT_PART,
    Attempt,
    AttemptOver,
    AttemptRunning,
    AttemptTold,
    Counted,
    Full,
    TokensUsed,
)
from ext_authz.redis_counts import OPEN_S, connect, reconnecting, script
from gateway_core.ids import ProviderName
from gateway_core.limits import Limits


class RedisAttempts:
    """Asks Redis. Every method raises one of `LimitsTrouble` if it does not answer in time."""

    def __init__(self, url: SecretStr, *, new_id: Callable[[], str], open_s: int = OPEN_S) -> None:
        self._redis = connect(url)
        self._new_id = new_id
        self._open_s = open_s
        self._attempt, self._keep, self._over = (
            script(self._redis, name) for name in ("attempt", "keep", "attempt_over")
        )

    async def count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        """Count an attempt, if the limits let it be made. Those at once are of all Envoys together."""
        # The organisation first: whose it is has to be known when it is given up.
        attempt_id = f"{attempt.org_id}/{self._new_id()}"
        async with reconnecting(self._redis):
            counts, wait_s = await self._attempt(
                keys=[_key(attempt.provider, name) for name in ("left", "young", "old", "open", "open_by_org")],
                args=[
                    *(attempt.org_id, attempt_id, attempt.tokens, self._open_s),
                    *(
                        -1 if limit is None else limit
                        for limit in (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
                    ),
                    KEPT_PART,
                ],
            )
        return Counted(attempt_id) if counts else Full(wait_s)

    async def tell(self, told: AttemptTold) -> None:
        """What became of attempts. Of one that is over it changes nothing to tell it again."""
        async with reconnecting(self._redis):
            match told:
                case AttemptRunning(provider, attempt_id):
                    await self._keep(keys=[_key(provider, "open")], args=[attempt_id, self._open_s])
                case AttemptOver(provider, attempt_id, requests_back, tokens_back):
                    await self._amend(provider, attempt_id, requests_back, tokens_back)
                case TokensUsed(provider, more_tokens):
                    await self._amend(provider, "", 0, -more_tokens)
                case _:
                    assert_never(told)

    async def _amend(self, provider: ProviderName, attempt_id: str, requests_back: int, tokens_back: int) -> None:
        await self._over(
            keys=[_key(provider, name) for name in ("left", "open", "open_by_org")],
            args=[attempt_id, requests_back, tokens_back],
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


def _key(provider: ProviderName, name: str) -> str:
    """All of a provider in one slot of a cluster, by what stands in braces."""
    return f"tollgate:attempts:{{{provider}}}:{name}"
