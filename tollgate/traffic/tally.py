"""What came of the requests, by what they were there to show. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tollgate.traffic.mix import Story


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended.

    Attributes:
        status: None if there was no answer.
        took_s: until its end.
        has_left: whether the client went away, as it was planned.
        is_cached: whether the answer was one that was given before.
    """

    story: Story
    status: int | None
    took_s: float
    has_left: bool = False
    is_cached: bool = False

    @property
    def words(self) -> str:
        """In a word or two."""
        if self.has_left:
            return "left"
        if self.status is None:
            return "no answer"
        return f"{self.status} cached" if self.is_cached else str(self.status)


@dataclass(slots=True)
class Tally:
    """Counts what has ended."""

    by_story: dict[Story, list[Ended]] = field(default_factory=dict)

    def add(self, ended: Ended) -> None:
        """One more."""
        self.by_story.setdefault(ended.story, []).append(ended)

    @property
    def answered(self) -> int:
        """How many had any answer at all."""
        return sum(each.status is not None for ended in self.by_story.values() for each in ended)

    def rows(self) -> Sequence[Mapping[str, object]]:
        """For each story how many requests there were, how they ended, and how long they took in the middle."""
        return [
            {
                "what": story.value,
                "requests": len(ended),
                "answers": _counted(ended),
                "median_ms": round(median(each.took_s for each in ended) * 1000),
            }
            for story in Story
            if (ended := self.by_story.get(story))
        ]


def _counted(ended: Sequence[Ended]) -> str:
    """`200: 41, 503: 2`, the most frequent first."""
    counts = Counter(each.words for each in ended)
    return ", ".join(f"{words}: {count}" for words, count in counts.most_common())
