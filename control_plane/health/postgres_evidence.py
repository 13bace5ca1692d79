"""What providers are judged by, from what the sink has recorded of the last minute. Where nothing has failed, next to nothing is read."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from control_plane.catalog.provider_state import ProviderState, Subject
from control_plane.database import Connection
from control_plane.health.judgement import HEALTHY, IN_A_ROW, WINDOW, Answers, Evidence, Failure, Limit, Probe
from control_plane.requests.attempts import why_given_up
from gateway_core.ids import ProviderName
from gateway_core.usage import SWITCHED

_FAILURES_MAX: Final = 5000
"""The latest are enough to see that something is wrong."""
_FAILURES_OF_ONE_MAX: Final = 1000
"""Of one organisation, whose failures are not to hide those of others."""

_OURS: Final = frozenset({"DC", "DI", "DPE", "DT", "LR", "NC", "NR", "OM", "RL", "RLSE", "UAEX", "UO"})
"""Flags of attempts that ended for reasons of the client's or of our own."""

_PROVIDERS_FAULT: Final = frozenset({401, 403, 408})
"""Besides 5xx: it does not take our credential, or has lost its patience."""
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500

_NO_CONNECTION: Final = frozenset({"UF", "UH"})

_FAILED: Final = """
    SELECT a.provider, coalesce(a.upstream_model, '') AS upstream_model, a.status, coalesce(a.response_flags, '-') AS flags,
        a.started_at + a.duration_ms * interval '1 ms' AS ended_at, coalesce(a.org_id, r.org_id) AS org_id
    FROM (
        SELECT *, row_number() OVER (PARTITION BY org_id ORDER BY recorded_at DESC) AS place FROM billing.attempts
        WHERE recorded_at > $1 AND provider IS NOT NULL AND NOT own_key AND NOT own_reply
    ) a LEFT JOIN billing.requests r ON a.org_id IS NULL AND r.request_id = a.request_id
    WHERE a.place <= $3 ORDER BY a.recorded_at DESC LIMIT $2
"""
"""Where nobody answered, whose request it was is known when that has ended."""
_ANSWERED: Final = """
    SELECT r.provider, coalesce(r.upstream_model, '') AS upstream_model,
        count(*) FILTER (WHERE r.started_at + r.duration_ms * interval '1 ms' > asked.since) AS answers,
        max(r.started_at + r.duration_ms * interval '1 ms') AS last_at,
        array_remove(array_agg(DISTINCT r.org_id), NULL) AS org_ids
    FROM billing.requests r JOIN unnest($2::text[], $3::timestamptz[]) AS asked (provider, since) USING (provider)
    WHERE r.recorded_at > $1 AND r.mode = 'live' AND NOT r.own_key AND r.attempts > 0 AND r.status <> ALL ($4::integer[])
      AND (r.status = $5 OR r.status BETWEEN 200 AND 499 AND coalesce(r.response_flags, '-') IN ('-', ''))
    GROUP BY 1, 2
"""
_LIMITS: Final = """
    SELECT provider, upstream_model, told_at, free_at, status FROM billing.provider_limits
    WHERE told_at > $1 OR free_at > $2
"""
_PROBES: Final = """
    SELECT provider, ended_at, answered, coalesce(why, '') AS why, failures FROM catalog.provider_probes
    WHERE ended_at > $1
"""


async def read_evidence(db: Connection, states: Mapping[Subject, ProviderState], now: datetime) -> Evidence:
    """What was seen of all providers until now, by which their states are to be judged."""
    begin = now - WINDOW
    failures: dict[Subject, list[Failure]] = defaultdict(list)
    for row in await db.fetch(_FAILED, begin, _FAILURES_MAX, _FAILURES_OF_ONE_MAX):
        if is_failure(row["status"], row["flags"].split(",")):
            failures[_subject(row["provider"], row["upstream_model"])].append(
                Failure(
                    row["ended_at"],
                    why_given_up(row["status"], row["flags"]),
                    was_answered=row["status"] != 0 and row["flags"] == "-",
                    was_reached=_NO_CONNECTION.isdisjoint(row["flags"].split(",")),
                    org_id=row["org_id"],
                )
            )
    counted = Counter({subject.provider: 0 for subject in failures})
    for subject, found in failures.items():
        counted[subject.provider] += len(found)
    suspects = [provider for provider, count in counted.items() if count >= IN_A_ROW]
    answers = {}
    if suspects:
        since = [states.get(Subject(provider), HEALTHY).since for provider in suspects]
        not_well = [*_PROVIDERS_FAULT, _TOO_MANY_REQUESTS]
        for row in await db.fetch(_ANSWERED, begin, suspects, since, not_well, SWITCHED):
            answers[_subject(row["provider"], row["upstream_model"])] = Answers(
                row["answers"], row["last_at"], frozenset(row["org_ids"])
            )
    limits = {
        _subject(row["provider"], row["upstream_model"]): Limit(
            row["told_at"], row["free_at"], is_refusal=row["status"] == _TOO_MANY_REQUESTS
        )
        for row in await db.fetch(_LIMITS, begin, now)
    }
    probes = {
        Subject(ProviderName(row["provider"])): Probe(row["ended_at"], row["answered"], row["why"], row["failures"])
        for row in await db.fetch(_PROBES, begin)
    }
    return Evidence(failures, answers, limits, probes)


def is_failure(status: int, flags: Sequence[str]) -> bool:
    """Whether an attempt shows that something is wrong with its provider. Over its limits is another matter."""
    # A session that was begun ends when either side hangs up.
    if not _OURS.isdisjoint(flags) or status in {_TOO_MANY_REQUESTS, SWITCHED}:
        return False
    if status >= _SERVER_ERROR or status in _PROVIDERS_FAULT:
        return True
    # It broke off, before its answer or in the middle.
    return bool({*flags} - {"-", ""})


def _subject(provider: str, upstream_model: str) -> Subject:
    return Subject(ProviderName(provider), upstream_model or None)
