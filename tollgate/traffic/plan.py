"""Which request comes when, and what is in it: all of it from a seed. Pure."""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway_core.contract import Header
from gateway_core.endpoints import Endpoint
from gateway_core.mode import Mode
from tollgate.traffic.bodies import Question
from tollgate.traffic.day import moments
from tollgate.traffic.mix import ASSISTANT, CLAUDE, FLASH, LARGE, MINI, Activity, Story, drawn
from tollgate.traffic.tenants import HURRIED, PENNILESS, TESTER, App, Project, apps

OUTAGE: Final = (0.62, 0.66)
"""The part of the run in which what is asked of these models alone fails."""
OUT: Final = frozenset({MINI, LARGE})

_LATENCY_MS: Final[Mapping[str, int]] = {MINI: 90, LARGE: 220, CLAUDE: 260, FLASH: 120}
_USUAL_LATENCY_MS: Final = 110
_LATENCY_MS_MAX: Final = 1500
_PATIENCE_S: Final = 0.4
_NEVER_SO_SOON_MS: Final = 2000
"""Before the first byte, for a client that does not wait for it."""
_WORDS_MAX: Final = 1500
"""What they and an answer come to fits into the context of every model here; beyond it no simulated usage would be believed."""
_OUTPUT_TOKENS_MAX: Final = 400
_STREAMED_TOKENS_MAX: Final = 120
"""A stream has an event for each, with a pause between two."""
_EVENTS_UNTIL_GONE: Final = 4
_ERRORS: Final = ("500", "503", "429", "529", "reset")
_FAILING_PERCENT: Final = 50
"""Of the attempts of a request whose provider fails; drawn anew at the next provider."""
_CACHED_PERCENT: Final = 30
"""Of conversations have a part that the provider has read before."""
_CACHES: Final = frozenset({MINI, LARGE, CLAUDE, FLASH, ASSISTANT})
"""What has a price for that. Usage that has none is set aside for a person to decide."""
_REASONING_PERCENT: Final = 25
_REASONS: Final = frozenset({MINI, LARGE, FLASH})
"""The same for what a model thinks."""
_FEATURES: Final = ("answers", "summaries", "drafts", "search", "onboarding")
_STAGES: Final = ("production", "production", "production", "staging")
_ASKED_AGAIN: Final = (
    "What are your opening hours?",
    "How do I reset my password?",
    "Which countries do you ship to?",
)
_VOCABULARY: Final = (
    *("order", "shipment", "invoice", "patient", "letter", "report", "window", "harbour", "dragon", "quest", "meeting"),
    *(
        "please",
        "summarise",
        "translate",
        "compare",
        "explain",
        "the",
        "a",
        "our",
        "their",
        "with",
        "without",
        "before",
    ),
    *("after", "tomorrow", "quickly", "carefully", "delayed", "missing", "second", "first", "small", "large", "again"),
)
_SENDERS: Final[Mapping[Story, App]] = {
    Story.HURRIED: HURRIED,
    Story.PENNILESS: PENNILESS,
    Story.TEST: TESTER,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One request of the plan, not yet written.

    Attributes:
        number: which it is, from 0.
        at_s: when it begins, in seconds from the beginning.
        activity: what it is.
    """

    number: int
    at_s: float
    activity: Activity


@dataclass(frozen=True, slots=True)
class Planned:
    """A request as it is sent.

    Attributes:
        app: whose key it comes with; None for one that there is not.
        headers: without the credential.
        events_until_gone: after how many pieces of the answer the client leaves; None if it does not.
        patience_s: for how long the client waits for the answer; None for as long as it takes.
    """

    story: Story
    app: App | None
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    events_until_gone: int | None = None
    patience_s: float | None = None


def plan(seed: int, seconds: float, rate: float) -> list[Slot]:
    """Every request of a run, in the order in which they begin.

    Args:
        seed: the same gives the same plan.
        seconds: how long it takes until the last one begins.
        rate: requests in a second on average; at its busiest there are twice as many.
    """
    rng = random.Random(f"{seed} plan")  # noqa: S311 - to be repeated
    activities = drawn(rng, round(seconds * rate))
    begins = moments(rng, len(activities), seconds)
    until = [share * seconds for share in OUTAGE]
    return [
        Slot(number, at_s, _as_of(activity, is_out=until[0] <= at_s < until[1]))
        for number, (at_s, activity) in enumerate(zip(begins, activities, strict=True))
    ]


def _as_of(activity: Activity, *, is_out: bool) -> Activity:
    if is_out and activity.story in {Story.WHOLE, Story.STREAM} and activity.model in OUT:
        return Activity(Story.OUTAGE, activity.endpoint, activity.model, activity.per_mille)
    return activity


def written(seed: int, slot: Slot) -> Planned:
    """What is sent for a slot of the plan of that seed."""
    rng = random.Random(f"{seed} {slot.number}")  # noqa: S311 - to be repeated
    activity = slot.activity
    app, project = _sender(rng, activity.story)
    question = _question(rng, activity)
    return Planned(
        activity.story,
        None if activity.story is Story.UNKNOWN_KEY else app,
        question.path,
        _headers(rng, activity, app, project),
        _body(rng, activity, question),
        _EVENTS_UNTIL_GONE if activity.story is Story.LEAVING else None,
        _PATIENCE_S if activity.story is Story.IMPATIENT else None,
    )


def _sender(rng: random.Random, story: Story) -> tuple[App, Project]:
    known = list(apps())
    if story in _SENDERS:
        return next(each for each in known if each[0] is _SENDERS[story])
    regular = [each for each in known if each[0].mode is Mode.LIVE]
    [chosen] = rng.choices(regular, [app.weight for app, _ in regular])
    return chosen


def _question(rng: random.Random, activity: Activity) -> Question:
    if activity.story is Story.CACHED:
        # The same to the last letter, or it would be another question.
        text = f"{rng.choice(_ASKED_AGAIN)} [[sim latency_ms={_LATENCY_MS[MINI]} output_tokens=40]]"
        return Question(activity.endpoint, activity.model, text, _OUTPUT_TOKENS_MAX)
    longest = _STREAMED_TOKENS_MAX if activity.is_stream else _OUTPUT_TOKENS_MAX
    tokens = _drawn_size(rng, 70, longest)
    words = rng.choices(_VOCABULARY, k=_drawn_size(rng, 90, _WORDS_MAX))
    directive = " ".join(f"{knob}={value}" for knob, value in _knobs(rng, activity, tokens).items())
    text = f"{' '.join(words)} [[sim {directive}]]"
    return Question(activity.endpoint, activity.model, text, 2 * longest, is_stream=activity.is_stream)


def _drawn_size(rng: random.Random, median: int, most: int) -> int:
    """Most are small and some are many times that, as sizes of conversations are."""
    return min(max(1, round(rng.lognormvariate(math.log(median), 0.9))), most)


def _knobs(rng: random.Random, activity: Activity, tokens: int) -> Mapping[str, str | int]:
    """What the simulator is told."""
    usual_ms = _LATENCY_MS.get(activity.model, _USUAL_LATENCY_MS)
    knobs: dict[str, str | int] = {
        "latency_ms": min(round(rng.lognormvariate(math.log(usual_ms), 0.4)), _LATENCY_MS_MAX),
        "output_tokens": tokens,
    }
    if activity.is_stream:
        knobs["token_delay_ms"] = rng.randint(4, 18)
    if activity.model in _CACHES and rng.randrange(100) < _CACHED_PERCENT:
        knobs["cached_tokens"] = rng.randint(16, 256)
    if activity.model in _REASONS and rng.randrange(100) < _REASONING_PERCENT:
        knobs["reasoning_tokens"] = rng.randint(8, 64)
    match activity.story:
        case Story.FALLBACK:
            return knobs | {"error": rng.choice(_ERRORS), "error_rate": _FAILING_PERCENT}
        case Story.OUTAGE:
            return knobs | {"error": "503"}
        case Story.BROKEN:
            return knobs | {"error": "cut"}
        case Story.LEAVING:
            return knobs | {"output_tokens": _STREAMED_TOKENS_MAX, "token_delay_ms": 18}
        case Story.IMPATIENT:
            return knobs | {"latency_ms": _NEVER_SO_SOON_MS}
        case _:
            return knobs


def _headers(rng: random.Random, activity: Activity, app: App, project: Project) -> Mapping[str, str]:
    tags = {
        "project": project.name.lower(),
        "feature": rng.choice(_FEATURES),
        "stage": rng.choice(_STAGES),
        "user": f"user-{rng.randint(1, 40)}",
    }
    headers = {
        "Content-Type": "application/json",
        "User-Agent": app.client,
        Header.TAGS: ",".join(f"{name}={value}" for name, value in tags.items()),
    }
    if activity.story is Story.CACHED:
        headers[Header.CACHE] = "on"
    if activity.endpoint is Endpoint.MESSAGES:
        headers["anthropic-version"] = "2023-06-01"
    return headers


def _body(rng: random.Random, activity: Activity, question: Question) -> bytes:
    text = json.dumps(question.body())
    if activity.story is Story.MALFORMED:
        return text[: rng.randrange(1, len(text))].encode()
    return text.encode()
