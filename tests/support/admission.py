"""Shorthand for admission: keys, prices, questions as Envoy asks them, and stores that are dictionaries."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.struct_pb2 import Struct

from ext_authz.kept import Files, Owned
from ext_authz.offers import Offer, Offers, PricedDeployment
from ext_authz.reservations import Amended, Ended, Exceeded, Limit, Reservation, Room, Running, Told
from ext_authz.slices import Payer
from gateway_core.api_keys import ApiKey, KeyHash
from gateway_core.budgets import AllHeld, Exhausted
from gateway_core.contract import Header, Metadata
from gateway_core.endpoints import Endpoint
from gateway_core.ids import KeyId, ModelName, OrgId, PriceVersion, ProjectId, ProviderName, RequestId, SliceId
from gateway_core.kept import KeptName
from gateway_core.limits import ScopedLimits
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.pricing import PriceRow, Rate
from gateway_core.usage import Meter
from wire.ext_authz_pb2 import CheckRequest

REQUEST_ID = RequestId("b1d71dd1-746f-46ff-aeb5-045245ff7fd4")
KEY = ApiKey(KeyId("key_1"), OrgId("org_1"), ProjectId("prj_1"), (), is_disabled=False, expires_at=None)
VERSION = PriceVersion(18)
MODEL = ModelName("gpt-4o-mini")
PROVIDER = ProviderName("p0")

CHAT: Mapping[str, str | int | bool] = {
    "endpoint": "chat",
    "model": "gpt-4o-mini",
    "stream": False,
    "hide_usage": False,
    "body_bytes": 67,
    "mode": "live",
}
"""What front.lua says about a plain chat request."""


def price(*, input_: int = 0, output: int = 0) -> PriceRow:
    """A deployment's prices, in nano-USD per token of input and of output."""
    rates = {Meter.INPUT: Rate(0, input_ * 1_000_000), Meter.OUTPUT: Rate(0, output * 1_000_000)}
    return PriceRow(VERSION, rates)


def offers(**prices_by_endpoint: tuple[PriceRow, ...]) -> Offers:
    """What offers `gpt-4o-mini` at `p0` as `up/0`, at `p1` as `up/1`, ..., with a context of 128,000 tokens and up to 1000 of output."""
    prices = {
        Endpoint(name): tuple(
            PricedDeployment(ProviderName(f"p{number}"), f"up/{number}", price_row)
            for number, price_row in enumerate(rows)
        )
        for name, rows in prices_by_endpoint.items()
    }
    return Offers(VERSION, {MODEL: Offer(MODEL, 128_000, 1000, frozenset(), prices)}, {})


def check_request(
    fields: Mapping[str, str | int | bool] | None = CHAT, headers: Mapping[str, str] | None = None
) -> CheckRequest:
    """A question as Envoy asks it; without `fields` the front filter has not seen the request."""
    request = CheckRequest()
    request.attributes.request.http.headers.update({Header.REQUEST_ID: REQUEST_ID} if headers is None else headers)
    if fields is not None:
        struct = Struct()
        struct.update({Metadata.REQUEST: dict(fields), Metadata.PLAN: "11,23,67"})
        request.attributes.metadata_context.filter_metadata[Metadata.NAMESPACE].CopyFrom(struct)
    return request


class Keys:
    """A `KeyStore` in memory.

    Attributes:
        asked: every hash that was looked up, in order.
        trouble: raised instead of an answer.
        go: until this is set, as it is at first, nobody is answered.
    """

    def __init__(self, keys: Mapping[KeyHash, ApiKey] | None = None) -> None:
        self.keys = dict(keys or {})
        self.asked: list[KeyHash] = []
        self.trouble: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, or None."""
        self.asked.append(key_hash)
        await self.go.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.keys.get(key_hash)


class SliceDrawer:
    """A `SliceStore`.

    Attributes:
        size: of the next slices; None: there is too little money.
        opened: slices and whose they are.
        returned: what of each was given back.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.opened: dict[SliceId, Payer] = {}
        self.returned: dict[SliceId, int] = {}
        self.trouble: Exception | None = None

    async def open(
        self, slice_id: SliceId, payer: Payer, *, amount_min: NanoUsd, spend_for: timedelta
    ) -> NanoUsd | None:
        """Open a slice if it has the size that is asked for."""
        assert spend_for > timedelta()
        if self.trouble is not None:
            raise self.trouble
        if self.size is None or self.size < amount_min:
            return None
        self.opened[slice_id] = payer
        return NanoUsd(self.size)

    async def give_back(self, slice_id: SliceId, unspent: NanoUsd) -> None:
        """Note what came back in all, as `billing.return_slice` does: said again it changes nothing, and it can become more."""
        if self.trouble is not None:
            raise self.trouble
        assert unspent >= self.returned.get(slice_id, 0)
        self.returned[slice_id] = unspent


class Counts:
    """`SharedLimits` of one tally.

    Attributes:
        exceeded: what the next one is answered; None: it is admitted.
        open: tokens expected of each request that is open.
        counted: requests, open or not.
        used: tokens that were told of while a session lasted.
        uses_max: as many are admitted at once.
        trouble: raised instead of an answer.
        go: until this is set, as it is at first, no reservation is answered.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.exceeded: Limit | None = None
        self.open: dict[RequestId, int] = {}
        self.counted = 0
        self.used = 0
        self.uses_max = 256
        self.trouble: Exception | None = None

    async def reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], *, tokens: int, uses: int
    ) -> Reservation | Exceeded:
        """Count requests, unless something is to be in the way."""
        assert org_id == KEY.org_id
        [only] = limits
        await self.go.wait()
        if self.trouble is not None:
            raise self.trouble
        if self.exceeded is not None:
            return Exceeded(self.exceeded, only.tally.scope, 7, Room(only.limits, 60, 1000, 30))
        self.open[request_id] = tokens
        uses = min(uses, self.uses_max)
        self.counted += uses
        return Reservation((only.tally,), tokens, 1_700_000_000, (Room(only.limits, self.counted, tokens, 61),), uses)

    async def use(
        self, org_id: OrgId, limits: Sequence[ScopedLimits], *, tokens: int, reserved: int
    ) -> Exceeded | None:
        """Count tokens; nothing is left if something is to be in the way."""
        assert org_id == KEY.org_id
        assert reserved >= 0
        [only] = limits
        if self.trouble is not None:
            raise self.trouble
        self.used += tokens
        if self.exceeded is None:
            return None
        return Exceeded(self.exceeded, only.tally.scope, 7, Room(only.limits, 60, 1000, 30))

    async def tell(self, org_id: OrgId, told: Told) -> None:
        """What became of them."""
        assert org_id == KEY.org_id
        match told:
            case Running(request_id=request_id):
                assert request_id in self.open
            case Ended(request_id=request_id, more_tokens=more_tokens):
                assert self.open.pop(request_id) == -more_tokens
            case Amended(more_requests=more_requests):
                self.counted += more_requests


class Registry:
    """Whose it is what providers keep.

    Attributes:
        owned: of each organisation and mode.
        trouble: raised instead of an answer.
    """

    def __init__(self) -> None:
        self.owned: dict[tuple[OrgId, Mode], Owned] = {}
        self.kept_files = Files(0, 0)
        self.trouble: Exception | None = None

    async def find(self, org_id: OrgId, mode: Mode, names: Collection[KeptName]) -> Owned:
        """Those of the names that are an organisation's."""
        if self.trouble is not None:
            raise self.trouble
        return {name: place for name, place in self.owned.get((org_id, mode), {}).items() if name in names}

    async def files(self, org_id: OrgId, mode: Mode, now: datetime) -> Files:
        """Those of everybody."""
        assert (org_id, mode, now.tzinfo) == (KEY.org_id, KEY.mode, UTC)
        return self.kept_files


class Purse:
    """`Holds` on one balance.

    Attributes:
        held: amount per request.
        ttls: how long each is to be kept.
        modes: in which ledger each is.
        exhausted: what a key with budgets is answered.
    """

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.held: dict[RequestId, int] = {}
        self.ttls: list[timedelta] = []
        self.modes: list[Mode] = []
        self.exhausted: Exhausted | AllHeld | None = None
        self.trouble: Exception | None = None

    async def place(
        self, request_id: RequestId, key: ApiKey, *, amount: NanoUsd, least: NanoUsd, ttl: timedelta
    ) -> NanoUsd | Exhausted | AllHeld | None:
        """Hold as much of an amount as the balance still covers."""
        assert (key.org_id, key.key_id) == (KEY.org_id, KEY.key_id)
        if self.trouble is not None:
            raise self.trouble
        if key.budgets is not None and self.exhausted is not None:
            return self.exhausted
        held = min(amount, self.balance - sum(self.held.values()))
        if held < least:
            return None
        self.held[request_id] = held
        self.modes.append(key.mode)
        self.ttls.append(ttl)
        return NanoUsd(held)
