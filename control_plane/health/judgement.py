"""What becomes of a provider, or of one of its models, by what was seen of it lately. Pure: a state, what was seen and the time go in.

Three kinds of evidence, from the best to the weakest: what a provider says of its own limits, what became of requests, and probes. An
operator's pause is above all of them and ends by an operator alone.

Failures count by organisation. A body that breaks a model, a question that only one asks, an answer that nobody waits for: one
organisation can bring about as many failures as it likes, and they would take the provider from all others. So of one organisation no
more failures count than of all others together, as soon as anybody else was answered. Where it is alone, its word has to do. Against
answers failures count only where as many organisations have failed as were answered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from gateway_core.ids import OrgId

WINDOW: Final = timedelta(seconds=60)
"""How far back requests are looked at."""
IN_A_ROW: Final = 5
"""So many failures with no answer between them, and it is down."""
SHARE_OF: Final = 10
"""Or so many failures, and at least as many as answers."""
PROBES_IN_A_ROW: Final = 3
DOUBLINGS_MAX: Final = 4
"""A provider that is out again and again is so for 16 times as long, and no longer: 8 minutes, where it begins with 30 seconds."""
FORGIVEN_AFTER: Final = timedelta(minutes=10)
"""Who was well for so long begins anew."""
UNTOLD: Final = timedelta(seconds=5)
"""How long is waited where a refusal for too many requests does not say."""
LIMIT_MAX: Final = timedelta(hours=1)
"""How long a provider is believed that it wants nothing: it may have changed its mind."""
NOT_WORTH_IT: Final = timedelta(seconds=1)
"""A limit that is over so soon is over before Envoys are told."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
HEALTHY: Final = ProviderState(Condition.HEALTHY, _NEVER)
"""What everybody is of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that shows that something is wrong with its provider.

    Attributes:
        was_reached: whether there was a connection. That there is none is nobody's doing.
        org_id: whose request it was part of; None while that is not known.
    """

    ended_at: datetime
    why: str
    was_answered: bool
    was_reached: bool = True
    org_id: OrgId | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers that show that all is well.

    Attributes:
        count: since it is as it is.
        org_ids: whose they were in the whole window.
    """

    count: int = 0
    last_at: datetime = _NEVER
    org_ids: frozenset[OrgId] = frozenset()


@dataclass(frozen=True, slots=True)
class Limit:
    """What a provider says of its limits.

    Attributes:
        free_at: until when it wants nothing; None: it does not say.
        is_refusal: whether it has refused something, and does not only say that the next will be.
    """

    told_at: datetime
    free_at: datetime | None
    is_refusal: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """The latest probe.

    Attributes:
        failures: how many have failed in a row, this one included.
    """

    ended_at: datetime
    answered: bool
    why: str
    failures: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a provider or a model in the window."""

    failures: Sequence[Failure] = ()
    answers: Answers = Answers()
    limit: Limit | None = None
    probe: Probe | None = None


NOTHING: Final = Seen()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of all of them. Of requests it is kept by model; limits are a model's, probes a provider's."""

    failures: Mapping[Subject, Sequence[Failure]] = field(default_factory=dict)
    answers: Mapping[Subject, Answers] = field(default_factory=dict)
    limits: Mapping[Subject, Limit] = field(default_factory=dict)
    probes: Mapping[Subject, Probe] = field(default_factory=dict)

    @property
    def subjects(self) -> set[Subject]:
        """Every model, and its provider."""
        models = {*self.failures, *self.answers, *self.limits, *self.probes}
        return models | {each.whole for each in models}

    def of_model(self, subject: Subject) -> Seen:
        """What was seen of one model."""
        return Seen(
            self.failures.get(subject, ()), self.answers.get(subject, Answers()), limit=self.limits.get(subject)
        )

    def of_provider(self, provider: Subject, states: Mapping[Subject, ProviderState]) -> Seen:
        """What was seen of a provider as a whole: of all its models but those that are known to be ill."""
        models = [
            each
            for each in {*self.failures, *self.answers}
            if each.whole == provider and not states.get(each, HEALTHY).is_out
        ]
        answers = [self.answers[each] for each in models if each in self.answers]
        return Seen(
            [failure for each in models for failure in self.failures.get(each, ())],
            Answers(
                sum(each.count for each in answers),
                max((each.last_at for each in answers), default=_NEVER),
                frozenset().union(*(each.org_ids for each in answers)),
            ),
            # Where a refusal does not say of which model.
            self.limits.get(provider),
            self.probes.get(provider),
        )


def judge(
    states: Mapping[Subject, ProviderState], evidence: Evidence, now: datetime, *, out_for: timedelta
) -> dict[Subject, ProviderState]:
    """Every state that changes. A provider is judged before its models: if all of them fail, none is to blame.

    Args:
        states: what each is now, as far as it was ever anything else than healthy.
        evidence: what was seen of the last minute.
        now: when.
        out_for: how long who has failed is out, the first time.
    """
    changed: dict[Subject, ProviderState] = {}
    subjects = evidence.subjects | {subject for subject, state in states.items() if state.is_out}
    for provider in sorted({each.whole for each in subjects}, key=str):
        state = states.get(provider, HEALTHY)
        after = following(state, evidence.of_provider(provider, states), now, out_for=out_for)
        if after is not None:
            changed[provider] = after
        if (after or state).is_out:
            continue
        for model in sorted((each for each in subjects if each.whole == provider != each), key=str):
            # What it has done while all of the provider was out is no news.
            since = max(state.since, after.since if after is not None else _NEVER)
            seen = _since(evidence.of_model(model), since)
            if (found := following(states.get(model, HEALTHY), seen, now, out_for=out_for)) is not None:
                changed[model] = found
    return changed


def following(state: ProviderState, seen: Seen, now: datetime, *, out_for: timedelta) -> ProviderState | None:
    """The state after this one; None while it lasts."""
    seen = _since(seen, state.since)
    times = state.times if state.is_out or now - state.since < FORGIVEN_AFTER else 0
    match state.condition:
        case Condition.PAUSED:
            return None
        case Condition.COOLING:
            return _after_cooling(state, seen.limit, now)
        case Condition.DOWN:
            return _after_down(state, seen.probe, now, out_for=out_for)
        case Condition.HEALTHY:
            limited = None if seen.limit is None else _limited(seen.limit, now, times)
            return limited or _fallen(seen, now, times, out_for=out_for)
        case _:
            assert_never(state.condition)


def back(state: ProviderState, now: datetime) -> ProviderState:
    """It gets requests again; for a while it is remembered how often it did not."""
    return ProviderState(Condition.HEALTHY, now, times=state.times)


def _after_cooling(state: ProviderState, limit: Limit | None, now: datetime) -> ProviderState | None:
    if limit is not None and limit.free_at is not None:
        # Requests that were under way have been refused as well, and told anew.
        until = min(limit.free_at, limit.told_at + LIMIT_MAX)
        if state.until is not None and until > state.until + NOT_WORTH_IT:
            return ProviderState(Condition.COOLING, state.since, until, state.why, state.times)
    return back(state, now) if _is_over(state, now) else None


def _after_down(
    state: ProviderState, probe: Probe | None, now: datetime, *, out_for: timedelta
) -> ProviderState | None:
    if state.by_probe and probe is not None and probe.answered:
        return back(state, now)
    if not _is_over(state, now):
        return None
    if probe is not None and not probe.answered:
        times = state.times + 1
        return ProviderState(Condition.DOWN, state.since, now + _pause(out_for, times), probe.why, times, by_probe=True)
    return back(state, now)


def _limited(limit: Limit, now: datetime, times: int) -> ProviderState | None:
    if limit.free_at is None:
        if not limit.is_refusal:
            return None
        until = limit.told_at + _pause(UNTOLD, times + 1)
        why = "too many requests"
    else:
        until = min(limit.free_at, limit.told_at + LIMIT_MAX)
        why = "too many requests, by its own word" if limit.is_refusal else "nothing is left of its limits"
    if until < now + NOT_WORTH_IT:
        return None
    return ProviderState(Condition.COOLING, now, until, why, times + 1)


def _fallen(seen: Seen, now: datetime, times: int, *, out_for: timedelta) -> ProviderState | None:
    in_a_row = sorted(
        (each for each in seen.failures if each.ended_at > seen.answers.last_at), key=lambda each: each.ended_at
    )
    if _weight(in_a_row, seen.answers) >= IN_A_ROW:
        why = f"{len(in_a_row)} failures in a row, the last: {in_a_row[-1].why}"
        # If it was never reached, reaching it is all there is to show. What it answers, a probe is no proof of.
        by_probe = not any(each.was_answered for each in in_a_row)
        return _out(why, now, times if _is_of_several(in_a_row) else 0, out_for=out_for, by_probe=by_probe)
    if _weight(_shared(seen.failures, seen.answers), seen.answers) >= max(SHARE_OF, seen.answers.count):
        last = max(seen.failures, key=lambda each: each.ended_at)
        why = f"{len(seen.failures)} of {len(seen.failures) + seen.answers.count} failed, the last: {last.why}"
        return _out(why, now, times if _is_of_several(seen.failures) else 0, out_for=out_for)
    if seen.probe is not None and not seen.probe.answered and seen.probe.failures >= PROBES_IN_A_ROW:
        return _out(seen.probe.why, now, times, out_for=out_for, by_probe=True)
    return None


def _out(why: str, now: datetime, times: int, *, out_for: timedelta, by_probe: bool = False) -> ProviderState:
    return ProviderState(Condition.DOWN, now, now + _pause(out_for, times + 1), why, times + 1, by_probe)


def _weight(failures: Sequence[Failure], answers: Answers) -> int:
    """How many failures count.

    Whoever may have brought them about is thought to have, with all those of nobody knows whom: if somebody else was answered, they count
    as far as others' failures match them.
    """
    known = _by_organisation(failures)
    caps = (
        2 * (known.total() - known[suspect])
        for suspect in (*known, None)
        if any(org_id != suspect for org_id in answers.org_ids)
    )
    asked = [each for each in failures if each.was_reached]
    return len(failures) - len(asked) + min((len(asked), *caps))


def _shared(failures: Sequence[Failure], answers: Answers) -> Sequence[Failure]:
    """Those that are set against answers.

    Requests are cheap, and a person may have two organisations. So failures are not, where more organisations were answered than have only
    failed; one that is alone is believed.
    """
    known = _by_organisation(failures).keys()
    if len(known - answers.org_ids) >= len(answers.org_ids) or len(known | answers.org_ids) == 1:
        return failures
    return [each for each in failures if not each.was_reached]


def _is_of_several(failures: Sequence[Failure]) -> bool:
    """Whether they are more than one organisation's word.

    On that alone nobody is out for longer and longer: the others, who are not there meanwhile, could not say otherwise.
    """
    return not all(each.was_reached for each in failures) or len(_by_organisation(failures)) > 1


def _by_organisation(failures: Sequence[Failure]) -> Counter[OrgId | None]:
    """Of those whose it is known, how many are whose."""
    return Counter(each.org_id for each in failures if each.was_reached and each.org_id is not None)


def _since(seen: Seen, since: datetime) -> Seen:
    """What is news to who has been as they are since then."""
    return Seen(
        [each for each in seen.failures if each.ended_at > since],
        seen.answers,
        seen.limit if seen.limit is not None and seen.limit.told_at > since else None,
        seen.probe if seen.probe is not None and seen.probe.ended_at > since else None,
    )


def _is_over(state: ProviderState, now: datetime) -> bool:
    return state.until is not None and state.until <= now


def _pause(first: timedelta, times: int) -> timedelta:
    return first * (1 << min(times - 1, DOUBLINGS_MAX))
