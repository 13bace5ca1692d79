"""Envoy's question, answered: parse, load, decide, reserve, hold, render.

Fail closed: whatever goes wrong here is an error to Envoy, and Envoy answers the client with 503.
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, assert_never

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import SecretStr

from ext_authz.asked import Asked
from ext_authz.check_request import MalformedCheckError, parse_check
from ext_authz.check_response import render_decision
from ext_authz.crowds import STRANGERS, Crowds
from ext_authz.decision import Admitted, Output, Refused, decide, expected
from ext_authz.kept import Files, Owned
from ext_authz.keys import KeyCache
from ext_authz.leases import Bounds, body_bound
from ext_authz.lender import Lender
from ext_authz.limiter import Limiter
from ext_authz.offers import Offers
from ext_authz.provider_limits import METHOD as ASK_WHETHER_FULL
from ext_authz.provider_limits import SERVICE as RATE_LIMIT_SERVICE
from ext_authz.provider_limits import ProviderLimits
from ext_authz.reservation_notes import ReservationNotes
from ext_authz.reservations import Amended, Ended, Exceeded, Limit, Reservation, tightest
from ext_authz.running_requests import METHOD as FOLLOW
from ext_authz.running_requests import SERVICE as ACCESS_LOG_SERVICE
from ext_authz.running_requests import RunningRequests
from ext_authz.session_uses import SessionUses
from ext_authz.slices import Payer, Slices, Taken
from ext_authz.turns import Turns
from ext_authz.uses import KeyUses
from gateway_core.api_keys import ApiKey, KeyHash, hash_key, is_well_formed
from gateway_core.budgets import AllHeld, Exhausted
from gateway_core.clock import Monotonic, Now
from gateway_core.contract import SESSION_S_MAX, SESSIONS_SERVICE, USE_METHOD, Peer
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import (
    INSUFFICIENT_QUOTA,
    MODEL_CHANGING,
    TOO_MANY_WAITING,
    ApiError,
    budget_exceeded,
    budget_held,
    concurrency_exceeded,
    files_exceeded,
    requests_per_minute_exceeded,
    tokens_per_minute_exceeded,
)
from gateway_core.ids import OrgId, RequestId
from gateway_core.kept import KeptName
from gateway_core.limits import Scope
from gateway_core.logs import Logger
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.mutual_tls import only_for, server_credentials
from gateway_core.postgres import Trouble
from gateway_core.settings import TlsFiles
from wire.access_log_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from wire.ext_authz_pb2 import CheckRequest, CheckResponse
from wire.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

SESSION_TTL: Final = timedelta(seconds=SESSION_S_MAX + 60)
"""A hold lives at least as long as its session, and its line takes a moment."""

BEHIND_S_MAX: Final = 0.5
"""How long a request waits for the revision that its route is of."""

CALLS_PER_CHECK: Final = 4
"""For every check that may be under way, so many calls: checks that are refused at once, questions about providers and sessions, access logs. Those let
attempts pass where they are not answered, so a flood of checks is not to be in their way."""

NOTHING: Final = NanoUsd(0)
"""Held where only a balance is asked for."""

_SERVICE = "envoy.service.auth.v3.Authorization"

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    # Envoy asks now and then whether this process is still there; more often than gRPC would stand.
    ("grpc.http2.max_ping_strikes", 0),
)


class OfferSource(Protocol):
    """Where the current offers are."""

    @property
    def offers(self) -> Offers:
        """The newest reading."""

    async def wait_for_next(self, timeout_s: float) -> bool:
        """Wait for the next reading; False if there was none in time."""


class Holds(Protocol):
    """Where money is set aside."""

    async def place(
        self, request_id: RequestId, key: ApiKey, *, amount: NanoUsd, least: NanoUsd, ttl: timedelta
    ) -> NanoUsd | Exhausted | AllHeld | None:
        """Hold an amount for a request, or as much of it as the balance of the key's mode covers and its budgets allow.

        None if the balance covers less than the least; a budget that allows less than that is named.

        Raises:
            asyncpg.PostgresError, OSError: nothing is held, or nobody knows; the request must not pass.
        """


class Kept(Protocol):
    """Where it is written whose it is what providers keep."""

    async def find(self, org_id: OrgId, mode: Mode, names: Collection[KeptName]) -> Owned:
        """Those of the names that are an organisation's.

        Raises:
            asyncpg.PostgresError, OSError: nobody knows; the request must not pass.
        """

    async def files(self, org_id: OrgId, mode: Mode, now: datetime) -> Files:
        """The files that are kept for an organisation.

        Raises:
            asyncpg.PostgresError, OSError: as above.
        """


class StrangersCrowdError(Exception):
    """As many keys are being looked up as may be."""


class Authorization:
    """The gRPC service's one method, and what it asks."""

    def __init__(
        self,
        *,
        keys: KeyCache,
        offers: OfferSource,
        slices: Slices,
        lender: Lender,
        holds: Holds,
        kept: Kept,
        files_max: Files,
        limiter: Limiter,
        notes: ReservationNotes,
        uses: KeyUses,
        pepper: SecretStr,
        hold_ttl: timedelta,
        session_responses: int,
        checks_max: int,
        now: Now,
        monotonic: Monotonic,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._keys = keys
        self._offers = offers
        self._slices = slices
        self._lender = lender
        self._holds = holds
        self._kept = kept
        self._files_max = files_max
        self._limiter = limiter
        self._notes = notes
        self._given_up: set[asyncio.Task[Reservation | Exceeded]] = set()
        self._turns = Turns()
        self._checks_max = checks_max
        self._under_way = 0
        self._crowds = Crowds(checks_max)
        self._uses = uses
        self._pepper = pepper
        self._hold_ttl = hold_ttl
        self._session_responses = session_responses
        self._now = now
        self._monotonic = monotonic
        self._log = log
        self._decisions = Counter("tollgate_ext_authz_decisions_total", "Decisions", ["decision"], registry=registry)
        self._leased = Counter(
            "tollgate_ext_authz_lease_uses_total",
            "Requests that Envoy was lent the right to let pass, and those given back",
            ["what"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tollgate_ext_authz_seconds",
            "Time to decide",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2),
            registry=registry,
        )

    async def check(
        self, request: CheckRequest, context: "grpc.aio.ServicerContext[CheckRequest, CheckResponse]"
    ) -> CheckResponse:
        """Decide about one request, unless as many are under way as may be."""
        if self._under_way >= self._checks_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many checks")
        self._under_way += 1
        try:
            return await self._answer(request, context)
        except StrangersCrowdError:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many keys are being looked up")
        finally:
            self._under_way -= 1

    async def _answer(
        self, request: CheckRequest, context: "grpc.aio.ServicerContext[CheckRequest, CheckResponse]"
    ) -> CheckResponse:
        began = self._monotonic()
        try:
            asked = self._bounded(parse_check(request))
            decision = await self._decide(asked)
        except (MalformedCheckError, *Trouble) as error:
            self._decisions.labels("error").inc()
            self._log.warning("check_failed", error=type(error).__name__)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cannot decide")
        self._decisions.labels("admitted" if isinstance(decision, Admitted) else decision.error.code).inc()
        self._seconds.observe(self._monotonic() - began)
        return render_decision(decision, asked)

    def _bounded(self, asked: Asked) -> Asked:
        """What a session asks for is not said, so it is ours to say."""
        return replace(asked, choices=self._session_responses) if FACTS[asked.endpoint].is_session else asked

    async def _decide(self, asked: Asked) -> Admitted | Refused:
        for back in self._lender.take_back(asked.unspent):
            self._slices.put_in(back.slice, back.amount)
            self._leased.labels("given_back").inc(back.uses)
            if (counted := back.reservation) is not None:
                self._notes.put(
                    back.slice.payer.org_id,
                    Amended(counted.tallies, counted.at, -back.uses, -back.uses * counted.tokens),
                )
        key_hash = self._hash_of(asked)
        if key_hash is None:
            return await self._decide_of_key(asked, None)
        if self._keys.is_at_hand(key_hash):
            key = await self._keys.find(key_hash)
        else:
            # Anybody can show what has a key's form, so those do not fill this process.
            with self._crowds.of(STRANGERS) as has_place:
                if not has_place:
                    raise StrangersCrowdError
                key = await self._keys.find(key_hash)
        if key is None:
            return await self._decide_of_key(asked, None)
        with self._crowds.of(key.org_id) as has_place:
            return await self._decide_of_key(asked, key) if has_place else Refused(TOO_MANY_WAITING, key)

    async def _decide_of_key(self, asked: Asked, key: ApiKey | None) -> Admitted | Refused:
        if key is not None and asked.is_lease_wanted and self._may_lease(key):
            leased = await self._lease(asked, key)
            if leased is not None:
                return leased
        decision = await self._decide_but_for_limits_and_money(asked, key)
        if isinstance(decision, Refused):
            return decision
        self._uses.note(decision.key.key_id, self._now())
        if decision.output is None and not decision.limits and not FACTS[asked.endpoint].needs_balance:
            return decision
        if asked.endpoint is Endpoint.FILE_UPLOAD:
            kept = await self._kept.files(decision.key.org_id, decision.key.mode, self._now())
            if self._files_max.refuses(kept, asked.file_bytes):
                return Refused(files_exceeded(self._files_max.count, self._files_max.total_bytes), decision.key)
        if not decision.limits:
            return await self._pay(asked, decision)
        return await self._pay_within(asked, decision)

    def _may_lease(self, key: ApiKey) -> bool:
        """Whether what is decided about a request of a key holds for others of it for a moment."""
        ends_at = self._now() + timedelta(milliseconds=self._lender.ttl_ms)
        return (
            self._lender.ttl_ms > 0
            # Of a network, what was asked about says nothing; budgets are counted by the request.
            and not key.ip_allowed
            and key.budgets is None
            and key.is_valid(ends_at)
        )

    async def _lease(self, asked: Asked, key: ApiKey) -> Admitted | Refused | None:
        """Decide about a request and others like it; None if none are expected, or if they need more money than a slice is good for."""
        shape = (key.key_id, asked.shape)
        uses = self._lender.wanted(shape)
        if uses == 1:
            return None
        bounds = Bounds(body_bound(asked.body_bytes), asked.max_output_tokens)
        widest = replace(asked, body_bytes=bounds.body_bytes)
        decision = await self._decide_but_for_limits_and_money(widest, key)
        if isinstance(decision, Refused):
            return decision
        # Of requests at once, each counts by itself.
        if decision.output is None or any(each.limits.concurrency is not None for each in decision.limits):
            return None
        amount = decision.output.nano_usd
        taken = await self._slices.take(Payer(key.org_id, key.mode), amount, uses_max=uses)
        if taken is None:
            return None
        reservation: Reservation | None = None
        if decision.limits:
            admitted = 0
            try:
                # Each as large as the largest of them may be.
                found = await self._reserve(widest, decision, decision.output, uses=taken.uses)
                admitted = found.uses if isinstance(found, Reservation) else 0
            finally:
                self._slices.put_in(taken.slice, NanoUsd((taken.uses - admitted) * amount))
            if isinstance(found, Exceeded):
                return Refused(limit_exceeded(found), key, room=found.room)
            reservation, taken = found, Taken(taken.slice, admitted)
        self._uses.note(key.key_id, self._now())
        lease = self._lender.lend(shape, taken, amount, bounds, reservation)
        if lease is not None:
            self._leased.labels("lent").inc(lease.uses)
        return replace(decision, slice_id=taken.slice.slice_id, reservation=reservation, lease=lease)

    async def _pay_within(self, asked: Asked, decision: Admitted) -> Admitted | Refused:
        """Count it against its limits, and then hold the money for it."""
        found = await self._reserve(asked, decision, decision.output)
        if isinstance(found, Exceeded):
            return Refused(limit_exceeded(found), decision.key, room=found.room)
        try:
            paid = await self._pay(asked, decision)
        except BaseException:
            # Envoy gets no grant, so it will not say that the request is over; it may be that which has given up.
            self._notes.put(decision.key.org_id, Ended(found.tallies, asked.request_id, found.at, -found.tokens))
            raise
        if isinstance(paid, Refused):
            return replace(
                paid, reservation=self._given_back_of_model(asked, decision, found), room=tightest(found.rooms)
            )
        return replace(paid, reservation=found)

    def _given_back_of_model(self, asked: Asked, decision: Admitted, found: Reservation) -> Reservation:
        """A request that money refuses takes nothing of what all organisations share; what is left counts until Envoy says that it is over."""
        shared = tuple(tally for tally in found.tallies if tally.scope is Scope.MODEL)
        if shared:
            self._notes.put(decision.key.org_id, Ended(shared, asked.request_id, found.at, -found.tokens))
            self._notes.put(decision.key.org_id, Amended(shared, found.at, -1, 0))
        return replace(found, tallies=tuple(tally for tally in found.tallies if tally not in shared))

    async def _reserve(
        self, asked: Asked, decision: Admitted, output: Output | None, *, uses: int = 1
    ) -> Reservation | Exceeded:
        """Count a request, or several like it, against its limits. What is lent to an Envoy that does not wait for the answer does not count."""
        org_id = decision.key.org_id
        counting = asyncio.create_task(
            self._limiter.reserve(
                org_id, asked.request_id, decision.limits, expected(decision.limits, asked, output), uses=uses
            ),
            name="reserve",
        )
        try:
            return await asyncio.shield(counting)
        except asyncio.CancelledError:
            # Whether they count by now, only the end of it can tell; Redis has to answer within a moment.
            self._given_up.add(counting)
            counting.add_done_callback(partial(self._give_up, org_id, asked.request_id))
            raise

    def _give_up(self, org_id: OrgId, request_id: RequestId, counting: "asyncio.Task[Reservation | Exceeded]") -> None:
        self._given_up.discard(counting)
        if counting.cancelled() or counting.exception() is not None:
            return
        if isinstance(found := counting.result(), Reservation):
            self._notes.put(org_id, Ended(found.tallies, request_id, found.at, -found.tokens))
            self._notes.put(org_id, Amended(found.tallies, found.at, 1 - found.uses, (1 - found.uses) * found.tokens))

    async def _pay(self, asked: Asked, decision: Admitted) -> Admitted | Refused:
        """Set aside what it may cost."""
        output = decision.output
        if output is None and not FACTS[asked.endpoint].needs_balance:
            return decision
        amount = NOTHING if output is None else output.nano_usd
        least = NOTHING if output is None else output.least_nano_usd
        # A slice is anybody's in the organisation: nobody knows what a key has spent of it before it is charged.
        # A session has money of its own, which Envoy counts down.
        if output is not None and decision.key.budgets is None and decision.session is None:
            taken = await self._slices.take(Payer(decision.key.org_id, decision.key.mode), amount)
            if taken is not None:
                return replace(decision, slice_id=taken.slice.slice_id)
        async with self._turns.of(Payer(decision.key.org_id, decision.key.mode)) as has_turn:
            if not has_turn:
                return Refused(TOO_MANY_WAITING, decision.key)
            held = await self._holds.place(
                asked.request_id,
                decision.key,
                amount=amount,
                least=least,
                ttl=self._hold_ttl if decision.session is None else max(self._hold_ttl, SESSION_TTL),
            )
        match held:
            case None:
                return Refused(INSUFFICIENT_QUOTA, decision.key)
            case Exhausted():
                return Refused(budget_exceeded(held), decision.key)
            case AllHeld():
                return Refused(budget_held(held), decision.key)
            case _:
                return decision if output is None else decision.holding(held)

    async def _decide_but_for_limits_and_money(self, asked: Asked, key: ApiKey | None) -> Admitted | Refused:
        """Decide; if Envoy has come to a revision that was not read here yet, wait a moment for it."""
        deadline_s = self._monotonic() + BEHIND_S_MAX
        owned: Owned = {}
        if key is not None and asked.named:
            owned = await self._kept.find(key.org_id, key.mode, asked.named)
        while True:
            decision = decide(asked, key, self._offers.offers, owned, now=self._now())
            if isinstance(decision, Admitted) or decision.error is not MODEL_CHANGING:
                return decision
            if not await self._offers.wait_for_next(deadline_s - self._monotonic()):
                return decision

    def _hash_of(self, asked: Asked) -> KeyHash | None:
        if asked.credential is None or not is_well_formed(asked.credential):
            return None
        return hash_key(asked.credential, self._pepper)


def limit_exceeded(found: Exceeded) -> ApiError:
    """What the client is told of the limit that is in the way."""
    limits = found.room.limits
    match found.limit:
        case Limit.REQUESTS:
            return requests_per_minute_exceeded(found.scope, limits.requests_per_minute or 0, found.retry_after_s)
        case Limit.TOKENS:
            return tokens_per_minute_exceeded(found.scope, limits.tokens_per_minute or 0, found.retry_after_s)
        case Limit.CONCURRENCY:
            return concurrency_exceeded(found.scope, limits.concurrency or 0, found.retry_after_s)
        case _:
            assert_never(found.limit)


async def start_server(
    service: Authorization,
    providers: ProviderLimits,
    running: RunningRequests,
    uses: SessionUses,
    address: str,
    tls: TlsFiles,
    *,
    checks_max: int,
) -> grpc.aio.Server:
    """Serve Envoy on `host:port`. More than `CALLS_PER_CHECK` calls for each check that may be under way are refused unread.

    Raises:
        RuntimeError: the address cannot be bound.
        OSError: a file of the certificates cannot be read.
    """
    server = grpc.aio.server(maximum_concurrent_rpcs=CALLS_PER_CHECK * checks_max, options=_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        only_for(Peer.ENVOY, service.check),
        request_deserializer=CheckRequest.FromString,
        response_serializer=CheckResponse.SerializeToString,
    )
    asked = grpc.unary_unary_rpc_method_handler(
        only_for(Peer.ENVOY, providers.ask),
        request_deserializer=RateLimitRequest.FromString,
        response_serializer=RateLimitResponse.SerializeToString,
    )
    follower = grpc.stream_unary_rpc_method_handler(
        only_for(Peer.ENVOY, running.follow),
        request_deserializer=StreamAccessLogsMessage.FromString,
        response_serializer=StreamAccessLogsResponse.SerializeToString,
    )
    # A message is JSON, as it comes.
    counter: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(only_for(Peer.ENVOY, uses.use))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(_SERVICE, {"Check": handler}),
            grpc.method_handlers_generic_handler(RATE_LIMIT_SERVICE, {ASK_WHETHER_FULL: asked}),
            grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {FOLLOW: follower}),
            grpc.method_handlers_generic_handler(SESSIONS_SERVICE, {USE_METHOD: counter}),
        )
    )
    server.add_secure_port(address, server_credentials(tls))
    await server.start()
    return server
