"""Questions that come while others are being asked, asked together: one way there and back for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(slots=True)
class _Gathered(Generic[Q, A]):
    questions: list[Q]
    answers: "asyncio.Task[Sequence[A]]"


class Gathering(Generic[Q, A]):
    """Waits for nobody: a question is asked at once if it may be. No more wait in it than there are callers."""

    def __init__(self, name: str, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, at_once: int) -> None:
        """`ask` answers several questions in their order; it runs so many times at once, and in the order of the questions."""
        self._name = name
        self._ask = ask
        self._turns = asyncio.Semaphore(at_once)
        self._next: _Gathered[Q, A] | None = None

    async def ask(self, question: Q) -> A:
        """The answer, or what asking raises. Whoever gives up takes no answer from the others."""
        gathered = self._next
        if gathered is None:
            questions: list[Q] = []
            gathered = self._next = _Gathered(questions, asyncio.create_task(self._ask_all(questions), name=self._name))
        place = len(gathered.questions)
        gathered.questions.append(question)
        return (await asyncio.shield(gathered.answers))[place]

    async def _ask_all(self, questions: Sequence[Q]) -> Sequence[A]:
        async with self._turns:
            self._next = None
            return await self._ask(questions)
