"""Envoy's question whether a provider is full, once for each attempt at one that may be: parse, count, render.

It fails open: Envoy makes the attempt if it gets no answer, since limits are neither access nor money.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

from grpc.aio import ServicerContext

from ext_authz.attempt_limiter import AttemptLimiter
from ext_authz.attempts import Attempt, Counted, Full
from gateway_core.contract import AttemptCount, GrantField
from gateway_core.ids import OrgId, ProviderName
from gateway_core.limits import Limits
from wire.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = "ShouldRateLimit"


class ProviderLimits:
    """The gRPC service's one method.

    Args:
        limits: those of every provider that has any, as they are now.
    """

    def __init__(self, limiter: AttemptLimiter, limits: Callable[[], Mapping[ProviderName, Limits]]) -> None:
        self._limiter = limiter
        self._limits = limits

    async def ask(
        self,
        request: RateLimitRequest,
        context: "ServicerContext[RateLimitRequest, RateLimitResponse]",  # noqa: ARG002 - gRPC's signature
    ) -> RateLimitResponse:
        """Whether an attempt may be made."""
        attempt = parse_attempt(request)
        return render(attempt, await self._limiter.count(attempt, self._limits()))


def parse_attempt(request: RateLimitRequest) -> Attempt:
    """What Envoy says of it."""
    told = {entry.key: entry.value for each in request.descriptors for entry in each.entries}
    tokens = told.get(GrantField.EXPECTED_TOKENS, "")
    return Attempt(
        ProviderName(told.get(AttemptCount.PROVIDER, "")),
        told.get(AttemptCount.ENVOY, ""),
        OrgId(told.get(GrantField.ORG_ID, "")),
        int(tokens) if tokens.isdecimal() else 0,
    )


def render(attempt: Attempt, found: Counted | Full) -> RateLimitResponse:
    """The answer, with what the access log will say of the attempt."""
    response = RateLimitResponse(overall_code=RateLimitResponse.OK)
    match found:
        case Full(retry_after_s):
            response.overall_code = RateLimitResponse.OVER_LIMIT
            response.response_headers_to_add.add(key="retry-after", value=str(retry_after_s))
        case Counted(attempt_id):
            if attempt_id is not None:
                response.dynamic_metadata[AttemptCount.PROVIDER] = attempt.provider
                response.dynamic_metadata[AttemptCount.ENVOY] = attempt.envoy
                response.dynamic_metadata[AttemptCount.ATTEMPT_ID] = attempt_id
                response.dynamic_metadata[AttemptCount.TOKENS] = str(attempt.tokens)
        case _:
            assert_never(found)
    return response
