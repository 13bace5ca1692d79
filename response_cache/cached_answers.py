"""Finding an answer that was cached, waiting for one that is on the way, and keeping one. Without Redis there is none, and nobody waits."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from gateway_core.clock import Monotonic
from gateway_core.logs import Logger
from response_cache.answer import Answer, is_whole
from response_cache.question import Question
from response_cache.redis_answers import TURN_S, AnswersTrouble, Missing, Place, RedisAnswers
from response_cache.sealing import Seal, UnreadableAnswerError

STAY_S: Final = TURN_S / 3
ASK_AGAIN_S: Final = 1.0
"""For so long after trouble Redis is left alone: a question would only cost time."""
_PAUSE_S: Final = 0.02
_PAUSE_S_MAX: Final = 0.25


class Trouble(Enum):
    """Why nothing can be said of a question."""

    UNAVAILABLE = "unavailable"
    WAITED_IN_VAIN = "waited_in_vain"
    NOT_CACHED = "not_kept"
    UNREADABLE = "unreadable"
    """What was there was none of ours, and is there no longer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """It falls to this request to get the answer that others wait for."""

    question: Question
    place: Place


Found = Answer | Turn | Trouble


class CachedAnswers:
    """What the edge asks."""

    def __init__(
        self,
        answers: RedisAnswers,
        seal: Seal,
        *,
        ttl_s: int,
        wait_s: float,
        new_token: Callable[[], str],
        monotonic: Monotonic,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._answers = answers
        self._seal = seal
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._new_token = new_token
        self._monotonic = monotonic
        self._log = log
        self._turns: set[Place] = set()
        self._silent_until_s = 0.0
        self._ends = Counter(
            "tollgate_response_cache_turns_total", "Answers got for all who ask the same", ["end"], registry=registry
        )
        self._gone = Counter(
            "tollgate_response_cache_made_room_total", "Answers that made room for newer ones", registry=registry
        )
        self._unreadable = Counter(
            "tollgate_response_cache_unreadable_total",
            "Values in Redis that this installation has not written",
            registry=registry,
        )

    async def find(self, question: Question, will_wait: Callable[[float], Awaitable[None]]) -> Found:
        """The answer to a question, or what is to be done without one.

        Args:
            question: what is asked.
            will_wait: called once, with the seconds it may take, before it takes longer than a look.
        """
        name, token, pause_s = self._seal.name(question.text), self._new_token(), _PAUSE_S
        ends_s: float | None = None
        while self._monotonic() >= self._silent_until_s:
            try:
                place, found = await self._answers.look(question.org_id, name, token)
            except AnswersTrouble as error:
                self._rest(error)
                break
            match found:
                case bytes():
                    return await self._opened(place, found)
                case Missing.MY_TURN:
                    self._turns.add(place)
                    return Turn(question, place)
                case Missing.NOT_CACHED:
                    return Trouble.NOT_CACHED
                case Missing.ANOTHERS_TURN:
                    now_s = self._monotonic()
                    if ends_s is None:
                        ends_s = now_s + self._wait_s
                        await will_wait(self._wait_s)
                    if now_s >= ends_s:
                        return Trouble.WAITED_IN_VAIN
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, _PAUSE_S_MAX)
        return Trouble.UNAVAILABLE

    async def keep(self, turn: Turn, answer: Answer) -> None:
        """End a turn with an answer, which is cached if it is whole."""
        if not is_whole(turn.question.endpoint, answer):
            await self.refuse(turn)
            return
        cached = self._seal.close(turn.place.key, answer)
        self._turns.discard(turn.place)
        try:
            self._gone.inc(await self._answers.keep(turn.place, cached, turn.question.ttl_s or self._ttl_s))
        except AnswersTrouble as error:
            self._rest(error)
            self._ends.labels("unavailable").inc()
        else:
            self._ends.labels("kept").inc()

    async def refuse(self, turn: Turn) -> None:
        """End a turn with an answer that is not to be cached, so that nobody waits for it."""
        await self._end(turn, "not_kept", self._answers.say_not_cached)

    async def give_up(self, turn: Turn) -> None:
        """End a turn without an answer: somebody else may have more luck. One that has ended is not ended again."""
        if turn.place in self._turns:
            await self._end(turn, "given_up", self._answers.end_turn)

    async def stay(self) -> None:
        """Say of the turns under way that they are, for ever."""
        while True:
            await asyncio.sleep(STAY_S)
            try:
                await self._answers.stay(tuple(self._turns))
            except AnswersTrouble as error:
                self._rest(error)

    async def _end(self, turn: Turn, end: str, tell: Callable[[Place], Awaitable[None]]) -> None:
        self._turns.discard(turn.place)
        self._ends.labels(end).inc()
        try:
            await tell(turn.place)
        except AnswersTrouble as error:
            self._rest(error)

    async def _opened(self, place: Place, cached: bytes) -> Answer | Trouble:
        try:
            return self._seal.open(place.key, cached)
        except UnreadableAnswerError:
            self._unreadable.inc()
            self._log.warning("cached_answer_unreadable", name=place.name)
        try:
            await self._answers.discard(place)
        except AnswersTrouble as error:
            self._rest(error)
        return Trouble.UNREADABLE

    def _rest(self, error: BaseException) -> None:
        self._silent_until_s = self._monotonic() + ASK_AGAIN_S
        self._log.warning("redis_unavailable", error=type(error).__name__)
