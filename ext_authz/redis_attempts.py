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
from ext_authz.redis_counts import RedisScripts, Script
from ext_authz.reservations import OPEN_S
from gateway_core.ids import ProviderName
from gateway_core.limits import Limits


class RedisAttempts:
    """Asks Redis. Every method raises `CountsUnavailableError` if it does not answer in time."""

    def __init__(self, url: SecretStr, *, new_id: Callable[[], str], open_s: int = OPEN_S) -> None:
        self._scripts = RedisScripts(url)
        self._new_id = new_id
        self._open_s = open_s
        self._attempt, self._stays, self._over = map(Script, ("attempt", "attempt_stays", "attempt_over"))

    async def count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        """Count an attempt, if the limits let it be made; those at once are of each Envoy."""
        # The organisation first: whose it is has to be known when it is given up.
        attempt_id = f"{attempt.org_id}/{self._new_id()}"
        counts, wait_s = await self._scripts.run(
            self._attempt,
            keys=[
                *(_key(attempt.provider, name) for name in ("left", "young", "old")),
                *_open_keys(attempt.provider, attempt.envoy),
            ],
            args=[
                *(attempt.org_id, attempt_id, attempt.tokens, self._open_s),
                *(
                    -1 if limit is None else limit
                    for limit in (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
                ),
                KEPT_PART,
            ],
        )
        if not counts:
            return Full(wait_s)
        return Counted(None if limits == Limits(limits.requests_per_minute) else attempt_id)

    async def tell(self, told: AttemptTold) -> None:
        """What became of attempts. Of one that is over it changes nothing to tell it again."""
        match told:
            case AttemptRunning(provider, envoy, attempt_id):
                await self._scripts.run(self._stays, keys=_open_keys(provider, envoy), args=[attempt_id, self._open_s])
            case AttemptOver(provider, envoy, attempt_id, requests_back, tokens_back):
                await self._scripts.run(
                    self._over,
                    keys=[_key(provider, "left"), *_open_keys(provider, envoy)],
                    args=[attempt_id, requests_back, tokens_back],
                )
            case TokensUsed(provider, more_tokens):
                await self._scripts.run(self._over, keys=[_key(provider, "left")], args=["", 0, -more_tokens])
            case _:
                assert_never(told)

    async def close(self) -> None:
        """Give the connection back."""
        await self._scripts.close()


def _key(provider: ProviderName, name: str) -> str:
    """All of a provider in one slot of a cluster, by what stands in braces."""
    return f"tollgate:attempts:{{{provider}}}:{name}"


def _open_keys(provider: ProviderName, envoy: str) -> tuple[str, str]:
    """What is open, and how many of each organisation: at one Envoy."""
    return _key(provider, f"open:{envoy}"), _key(provider, f"open_by_org:{envoy}")
