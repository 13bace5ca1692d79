"""What Envoy tells of the tokens of a session, as a value."""

import json

import grpc
import pytest
import structlog
from prometheus_client import CollectorRegistry

from ext_authz.limiter import Limiter
from ext_authz.own_limits import OwnLimits
from ext_authz.reservations import Limit
from ext_authz.session_uses import SessionUses, Use, parse_use
from ext_authz.shared_counts import CountsUnavailableError, SharedCounts
from gateway_core.contract import UseField
from gateway_core.ids import OrgId
from gateway_core.limits import Limits, Scope, ScopedLimits, Tally, tallies_as_text, tokens_per_minute_as_text
from tests.support.admission import Counts

LIMITS = (
    ScopedLimits(Tally(Scope.KEY, "key_1"), Limits(tokens_per_minute=6000)),
    ScopedLimits(Tally(Scope.MODEL, "a/b:c"), Limits()),
)
TOLD = {
    UseField.ORG_ID: "org_1",
    UseField.RESERVED_FOR: tallies_as_text(each.tally for each in LIMITS),
    UseField.TOKENS_PER_MINUTE: tokens_per_minute_as_text(LIMITS),
    UseField.TOKENS: 1500,
    UseField.RESERVED_TOKENS: 0,
}


def test_the_limits_come_back_as_they_were_granted() -> None:
    assert parse_use(json.dumps(TOLD).encode()) == Use(OrgId("org_1"), LIMITS, 1500, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {UseField.ORG_ID: ""},
        {UseField.RESERVED_FOR: "nobody:key_1 -"},
        {UseField.TOKENS_PER_MINUTE: "6000"},
        {UseField.TOKENS_PER_MINUTE: "many -"},
        {UseField.TOKENS: -1},
        {UseField.TOKENS: None},
        {UseField.RESERVED_TOKENS: "few"},
    ],
)
def test_what_is_not_of_that_form_is_nobodys(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_use(json.dumps(TOLD | changed).encode())
    with pytest.raises(ValueError, match="not what Envoy tells"):
        parse_use(b"nothing")


class Context:
    """Of a call that nobody ends."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AssertionError(code, details)


@pytest.mark.parametrize("is_away", [False, True])
async def test_who_has_nothing_left_is_told_in_the_words_of_a_refusal_and_everybody_else_nothing(is_away: bool) -> None:
    counts = Counts()
    counts.trouble = CountsUnavailableError("gone") if is_away else None
    metrics = CollectorRegistry()
    shared = SharedCounts(is_there=True, monotonic=lambda: 0.0, registry=metrics, log=structlog.get_logger())
    limiter = Limiter(counts, OwnLimits(lambda: 0.0), shared, registry=metrics)
    uses = SessionUses(limiter)
    limits = (ScopedLimits(Tally(Scope.KEY, "key_1"), Limits(tokens_per_minute=6000)),)
    told = TOLD | {
        UseField.RESERVED_FOR: tallies_as_text(each.tally for each in limits),
        UseField.TOKENS_PER_MINUTE: tokens_per_minute_as_text(limits),
    }

    async def answered(tokens: int) -> bytes:
        return await uses.use(json.dumps(told | {UseField.TOKENS: tokens}).encode(), Context())  # type: ignore[arg-type]

    assert await answered(1500) == b""
    counts.exceeded = Limit.TOKENS
    error = json.loads(await answered(4500))["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "tokens")
    assert "6000 tokens per minute" in error["message"]
    assert counts.used == (0 if is_away else 6000)
