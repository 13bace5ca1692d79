"""What sessions use while they last: counted against their limits as each of their responses ends, and whether any is left for the next.

The edge to Envoy's script (`envoy/lua/limits.lua`), which speaks JSON over gRPC.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import grpc
from pydantic import Field, TypeAdapter, ValidationError

from ext_authz.limiter import Limiter
from gateway_core.errors import tokens_per_minute_exceeded
from gateway_core.ids import OrgId
from gateway_core.limits import ScopedLimits, parse_tokens_per_minute

Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(frozen=True, slots=True)
class _Told:
    """See `gateway_core.contract.UseField`."""

    org_id: Annotated[OrgId, Field(min_length=1)]
    reserved_for: str
    tokens_per_minute: str
    tokens: Count
    reserved_tokens: Count


_TOLD: Final = TypeAdapter(_Told)


@dataclass(frozen=True, slots=True)
class Use:
    """Tokens of a session, and the limits they count against.

    Attributes:
        tokens: used, and not counted yet.
        reserved_tokens: counted for it, and not used yet: they are in nobody's way but others'.
    """

    org_id: OrgId
    limits: tuple[ScopedLimits, ...]
    tokens: int
    reserved_tokens: int


def parse_use(content: bytes) -> Use:
    """Read what Envoy tells.

    Raises:
        ValueError: it is not of that form.
    """
    try:
        told = _TOLD.validate_json(content)
    except ValidationError as error:
        raise ValueError("not what Envoy tells of a session") from error
    return Use(
        told.org_id,
        parse_tokens_per_minute(told.reserved_for, told.tokens_per_minute),
        told.tokens,
        told.reserved_tokens,
    )


class SessionUses:
    """The gRPC service's one method."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def use(self, content: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Count tokens; nothing if the session may go on, or what its client is told."""
        try:
            use = parse_use(content)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not what Envoy tells of a session")
        exceeded = await self._limiter.use(use.org_id, use.limits, tokens=use.tokens, reserved=use.reserved_tokens)
        if exceeded is None:
            return b""
        error = tokens_per_minute_exceeded(
            exceeded.scope, exceeded.room.limits.tokens_per_minute or 0, exceeded.retry_after_s
        )
        return error.body().encode()
