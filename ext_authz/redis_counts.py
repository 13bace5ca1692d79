"""Redis (or Valkey) as what is counted together is asked of it: a connection, time-outs, scripts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import NoScriptError, RedisError

from ext_authz.shared_counts import CountsUnavailableError
from gateway_core.gathering import Gathering

TIMEOUT_S: Final = 0.25

_SCRIPTS: Final = Path(__file__).parent / "scripts"


_Answer = Sequence[int] | RedisError
"""An error of that script alone is its answer."""


class Script:
    """One of our scripts, as Redis knows it."""

    def __init__(self, name: str) -> None:
        self.text = (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Run:
    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | int]

    @property
    def command(self) -> tuple[str | int, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)


class RedisScripts:
    """Runs scripts in the order in which that is asked for. What is asked for while Redis is being asked goes along with the next question."""

    def __init__(self, url: SecretStr) -> None:
        # One is enough, and keeps the order. It is made when it is first wanted.
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url.get_secret_value(),
                max_connections=1,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                decode_responses=True,
            )
        )
        self._gathering = Gathering("run_scripts", self._run_all, at_once=1)

    async def run(self, script: Script, *, keys: Sequence[str], args: Sequence[str | int]) -> Sequence[int]:
        """What a script returns: numbers, if anything.

        Raises:
            CountsUnavailableError: Redis is down or slow, or does not take the script.
        """
        answer = await self._gathering.ask(_Run(script, keys, args))
        if isinstance(answer, RedisError):
            raise CountsUnavailableError(type(answer).__name__) from answer
        return answer

    async def _run_all(self, runs: Sequence[_Run]) -> Sequence[_Answer]:
        try:
            answers = await self._send(runs)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                for text in {runs[place].script.text for place in unknown}:
                    await self._redis.script_load(text)
                again = await self._send([runs[place] for place in unknown])
                for place, answer in zip(unknown, again, strict=True):
                    answers[place] = answer
        except (RedisError, OSError, TimeoutError) as error:
            raise CountsUnavailableError(type(error).__name__) from error
        return answers

    async def _send(self, runs: Sequence[_Run]) -> list[_Answer]:
        pipeline = self._redis.pipeline(transaction=False)
        for run in runs:
            pipeline.execute_command(*run.command)
        answers = await pipeline.execute(raise_on_error=False)
        return [() if answer is None else answer for answer in answers]

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.aclose()
