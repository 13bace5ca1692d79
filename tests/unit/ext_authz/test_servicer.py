"""The one gRPC method, with stores in memory: what is asked, in which order, and that trouble never lets anybody pass."""

import asyncio
import json
import math
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import NoReturn, cast

import asyncpg
import grpc
import pytest
import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from ext_authz.attempt_limiter import AttemptLimiter
from ext_authz.decision import FLOOR_TOKENS
from ext_authz.kept import Files, Place
from ext_authz.keys import KeyCache
from ext_authz.leases import LeaseId
from ext_authz.lender import Lender
from ext_authz.limiter import Limiter
from ext_authz.offers import Offers
from ext_authz.own_attempts import OwnAttempts
from ext_authz.own_limits import OwnLimits
from ext_authz.reservation_notes import ReservationNotes
from ext_authz.reservations import OUTPUT_TOKENS, Limit
from ext_authz.servicer import Authorization
from ext_authz.shared_counts import CountsUnavailableError, SharedCounts
from ext_authz.slices import Slices
from ext_authz.uses import KeyUses
from gateway_core.api_keys import LIVE_PREFIX, TEST_PREFIX, hash_key, new_key
from gateway_core.budgets import AllHeld, Budget, Budgets, Exhausted
from gateway_core.contract import GrantField, Header
from gateway_core.endpoints import Endpoint
from gateway_core.ids import SliceId
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.limits import Limits, Scope, scoped
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.offering import Offering
from gateway_core.postgres import Trouble
from gateway_core.providers import ProviderKind
from tests.support.admission import (
    CHAT,
    KEY,
    MODEL,
    PROVIDER,
    REQUEST_ID,
    VERSION,
    Counts,
    Keys,
    Purse,
    Registry,
    SliceDrawer,
    check_request,
    offers,
    price,
)
from wire.ext_authz_pb2 import CheckRequest, CheckResponse

PEPPER = SecretStr("pepper")
SECRET = new_key(LIVE_PREFIX, bytes).get_secret_value()
TROUBLES = [OSError("gone"), TimeoutError(), asyncpg.PostgresError("down"), asyncpg.InterfaceError("closed")]


class AbortedError(Exception):
    """What a real context raises when the call is ended with a status."""


class Context:
    """As much of a servicer's context as is used; the status a call was ended with."""

    status: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.status = code
        raise AbortedError(details)


class CurrentOffers:
    """An `OfferSource`."""

    def __init__(self, current: Offers) -> None:
        self.offers = current
        self.next: list[Offers] = []

    async def wait_for_next(self, timeout_s: float) -> bool:
        if timeout_s <= 0 or not self.next:
            return False
        self.offers = self.next.pop(0)
        return True


class Gate:
    """The service under test and everything it leans on: a key, a model at 1 nano-USD a token, a balance."""

    def __init__(self, balance: int = 10_000, *, lease_ttl_ms: int = 0, checks_max: int = 1000) -> None:
        self.keys = Keys({hash_key(SECRET, PEPPER): KEY})
        self.purse = Purse(balance)
        self.counts = Counts()
        self.registry = Registry()
        self.slices = SliceDrawer()
        self.offers = CurrentOffers(offers(chat=(price(input_=1, output=1),)))
        self.context = Context()
        self.uses = KeyUses(keys_max=10)
        self.metrics = CollectorRegistry()
        slices = Slices(
            self.slices,
            new_slice_id=lambda: SliceId("slice_1"),
            monotonic=lambda: 0.0,
            log=structlog.get_logger(),
        )
        counts = SharedCounts(is_there=True, monotonic=lambda: 0.0, registry=self.metrics, log=structlog.get_logger())
        limiter = Limiter(self.counts, OwnLimits(lambda: 0.0), counts, registry=self.metrics)
        attempts = AttemptLimiter(None, OwnAttempts(lambda: 0.0), counts, registry=self.metrics)
        self.notes = ReservationNotes(limiter, attempts, monotonic=lambda: 0.0, registry=self.metrics)
        self.service = Authorization(
            keys=KeyCache(
                self.keys,
                entries_max=10,
                ttl_ms=1000,
                stale_ms=0,
                silence_s=math.inf,
                trouble=Trouble,
                monotonic=lambda: 0.0,
            ),
            offers=self.offers,
            slices=slices,
            lender=Lender(ttl_ms=lease_ttl_ms, new_lease_id=lambda: LeaseId("lease_1"), monotonic=lambda: 0.0),
            holds=self.purse,
            kept=self.registry,
            files_max=Files(10, 1000),
            limiter=limiter,
            notes=self.notes,
            uses=self.uses,
            pepper=PEPPER,
            hold_ttl=timedelta(minutes=15),
            session_responses=4,
            checks_max=checks_max,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            monotonic=lambda: 0.0,
            registry=self.metrics,
            log=structlog.get_logger(),
        )

    async def ask(self, request: CheckRequest) -> CheckResponse:
        context = cast("grpc.aio.ServicerContext[CheckRequest, CheckResponse]", self.context)
        return await self.service.check(request, context)

    async def is_closed_to(self, request: CheckRequest) -> bool:
        """Whether the call ended with an error, which Envoy answers with 503."""
        with pytest.raises(AbortedError):
            await self.ask(request)
        return self.context.status is grpc.StatusCode.UNAVAILABLE

    async def note(self) -> None:
        """Have what was heard of reservations noted down."""
        noting = asyncio.create_task(self.notes.work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        noting.cancel()

    def decisions(self, decision: str) -> float:
        return self.metrics.get_sample_value("tollgate_ext_authz_decisions_total", {"decision": decision}) or 0


@pytest.fixture(autouse=True)
def logged() -> Iterator[Sequence[MutableMapping[str, object]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def gate() -> Gate:
    return Gate()


def from_client(credential: str | None = SECRET, **fields: str | int | bool) -> CheckRequest:
    headers = {Header.REQUEST_ID: REQUEST_ID}
    return check_request(
        {**CHAT, **fields}, headers if credential is None else headers | {Header.AUTHORIZATION: f"Bearer {credential}"}
    )


async def test_a_good_key_with_enough_balance_passes_with_its_worst_case_held(gate: Gate) -> None:
    response = await gate.ask(from_client())
    assert response.WhichOneof("http_response") == "ok_response"
    assert gate.purse.held == {REQUEST_ID: 67 + 1000}
    assert gate.purse.ttls == [timedelta(minutes=15)]
    assert response.dynamic_metadata[GrantField.HOLD_NANO_USD] == "1067"
    assert gate.decisions("admitted") == 1


async def test_a_balance_that_covers_less_than_all_of_the_answer_passes_with_a_shorter_one() -> None:
    gate = Gate(balance=67 + 300)
    response = await gate.ask(from_client())
    assert gate.purse.held == {REQUEST_ID: 367}
    assert response.dynamic_metadata[GrantField.HOLD_NANO_USD] == "367"
    assert response.dynamic_metadata[GrantField.MAX_TOKENS] == "300"
    assert list(response.ok_response.headers_to_remove) == [Header.PREPARED]


async def test_a_balance_that_does_not_even_cover_a_short_answer_is_refused_with_402() -> None:
    gate = Gate(balance=67 + FLOOR_TOKENS - 1)
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 402
    assert json.loads(response.denied_response.body)["error"]["code"] == "insufficient_quota"
    assert response.dynamic_metadata[GrantField.ERROR_CODE] == "insufficient_quota"
    assert response.dynamic_metadata[GrantField.ORG_ID] == KEY.org_id
    assert gate.decisions("insufficient_quota") == 1


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget.KEY_PER_DAY, "the daily budget of this API key does"),
        (Budget.KEY_PER_MONTH, "the monthly budget of this API key does"),
        (Budget.PROJECT_PER_DAY, "the daily budget of this API key's project"),
        (Budget.PROJECT_PER_MONTH, "the monthly budget of this API key's project"),
    ],
)
async def test_a_budget_that_does_not_cover_a_short_answer_is_named_with_its_renewal(
    gate: Gate, budget: Budget, words: str
) -> None:
    gate.keys.keys[hash_key(SECRET, PEPPER)] = replace(KEY, budgets=Budgets("Asia/Kathmandu", NanoUsd(1)))
    renews_at = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    gate.purse.exhausted = Exhausted(budget, renews_at)
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 402
    error = json.loads(response.denied_response.body)["error"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert words in error["message"]
    assert "renews at 2026-01-01T18:15:00Z" in error["message"]
    assert {each.header.key: each.header.value for each in response.denied_response.headers}[
        "x-should-retry"
    ] == "false"
    assert gate.decisions("budget_exceeded") == 1


async def test_a_budget_that_running_requests_hold_is_named_and_the_client_told_to_try_again(gate: Gate) -> None:
    gate.keys.keys[hash_key(SECRET, PEPPER)] = replace(KEY, budgets=Budgets("UTC", NanoUsd(1)))
    gate.purse.exhausted = AllHeld(Budget.PROJECT_PER_DAY)
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 429
    error = json.loads(response.denied_response.body)["error"]
    assert (error["code"], error["type"]) == ("budget_held", "requests")
    assert "hold what is left of the daily budget of this API key's project" in error["message"]
    headers = {each.header.key: each.header.value for each in response.denied_response.headers}
    assert headers == {"content-type": "application/json", "retry-after": "1"}
    assert gate.decisions("budget_held") == 1


async def test_a_key_with_a_budget_never_spends_from_a_slice_and_others_do(gate: Gate) -> None:
    gate.slices.size = 1_000_000
    gate.keys.keys[hash_key(SECRET, PEPPER)] = replace(
        KEY, budgets=Budgets("UTC", project_per_month_nano_usd=NanoUsd(5000))
    )
    await gate.ask(from_client())
    assert gate.purse.held == {REQUEST_ID: 1067}
    assert gate.slices.opened == {}
    other = new_key(LIVE_PREFIX, lambda count: b"\x02" * count).get_secret_value()
    gate.keys.keys[hash_key(other, PEPPER)] = KEY
    response = await gate.ask(from_client(other))
    assert response.dynamic_metadata[GrantField.SLICE_ID] == "slice_1"


async def test_asking_for_less_output_may_fit_where_all_of_it_did_not() -> None:
    gate = Gate(balance=100)
    response = await gate.ask(from_client(max_output_tokens=33))
    assert response.WhichOneof("http_response") == "ok_response"


async def test_the_same_balance_is_not_given_twice() -> None:
    gate = Gate(balance=1067 + 67 + FLOOR_TOKENS - 1)
    await gate.ask(from_client())
    other = from_client()
    other.attributes.request.http.headers[Header.REQUEST_ID] = "another"
    assert (await gate.ask(other)).denied_response.status.code == 402


@pytest.mark.parametrize("credential", [None, "hunter2", SECRET[:-1], SECRET[:-1] + "0", SECRET + "0", "sk-proj-abc"])
async def test_a_key_that_cannot_exist_never_reaches_the_store(gate: Gate, credential: str | None) -> None:
    response = await gate.ask(from_client(credential))
    assert response.denied_response.status.code == 401
    assert gate.keys.asked == []


async def test_a_well_formed_key_that_nobody_has_is_refused(gate: Gate) -> None:
    stranger = new_key(LIVE_PREFIX, lambda count: b"\x01" * count).get_secret_value()
    response = await gate.ask(from_client(stranger))
    assert response.denied_response.status.code == 401
    assert len(gate.keys.asked) == 1


async def test_the_store_is_asked_for_the_hash_and_never_sees_the_key(gate: Gate) -> None:
    await gate.ask(from_client())
    assert gate.keys.asked == [hash_key(SECRET, PEPPER)]


async def test_nothing_is_held_for_a_request_that_is_refused(gate: Gate) -> None:
    response = await gate.ask(from_client(model="gpt-99"))
    assert response.denied_response.status.code == 404
    assert gate.purse.held == {}


async def test_a_list_of_models_is_admitted_with_an_empty_balance() -> None:
    gate = Gate(balance=0)
    response = await gate.ask(
        check_request({"endpoint": "models"}, {Header.REQUEST_ID: REQUEST_ID, Header.AUTHORIZATION: f"Bearer {SECRET}"})
    )
    assert response.WhichOneof("http_response") == "ok_response"
    assert gate.purse.held == {}


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
async def test_nobody_unknown_passes_while_the_key_store_is_in_trouble(gate: Gate, trouble: Exception) -> None:
    gate.keys.trouble = trouble
    assert await gate.is_closed_to(from_client())
    assert gate.purse.held == {}
    assert gate.decisions("error") == 1
    assert gate.decisions("admitted") == 0


def about_a_file() -> CheckRequest:
    fields = {"endpoint": "file", "named": "file/file-1", "mode": "live"}
    return check_request(fields, {Header.REQUEST_ID: REQUEST_ID, Header.AUTHORIZATION: f"Bearer {SECRET}"})


async def test_what_is_kept_is_told_of_with_its_provider_and_costs_nothing() -> None:
    gate = Gate(balance=0)
    file = KeptName(KeptKind.FILE, ObjectId("file-1"))
    gate.offers.offers = replace(gate.offers.offers, kinds={PROVIDER: ProviderKind.OPENAI})
    assert (await gate.ask(about_a_file())).denied_response.status.code == 404
    gate.registry.owned[KEY.org_id, KEY.mode] = {file: Place(PROVIDER)}
    response = await gate.ask(about_a_file())
    assert response.WhichOneof("http_response") == "ok_response"
    assert response.dynamic_metadata[GrantField.PROVIDER] == PROVIDER
    assert gate.purse.held == {}


def an_upload() -> CheckRequest:
    return from_client(endpoint="file_upload", model="", files=1, file_bytes=100, provider=PROVIDER)


def keeper(balance: int) -> Gate:
    gate = Gate(balance)
    gate.offers.offers = replace(gate.offers.offers, kinds={PROVIDER: ProviderKind.OPENAI})
    return gate


async def test_an_upload_needs_a_balance_and_ends_with_nothing_held() -> None:
    gate = keeper(balance=1)
    assert (await gate.ask(an_upload())).WhichOneof("http_response") == "ok_response"
    assert gate.purse.held == {REQUEST_ID: 0}
    gate = keeper(balance=-1)
    refused = await gate.ask(an_upload())
    assert refused.denied_response.status.code == 402
    assert json.loads(refused.denied_response.body)["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize(("kept", "is_refused"), [(Files(9, 900), False), (Files(10, 0), True), (Files(1, 901), True)])
async def test_files_are_bounded_in_number_and_in_bytes(kept: Files, *, is_refused: bool) -> None:
    gate = keeper(balance=1)
    gate.registry.kept_files = kept
    response = await gate.ask(an_upload())
    assert (response.denied_response.status.code == 403) == is_refused
    if is_refused:
        error = json.loads(response.denied_response.body)["error"]
        assert error["code"] == "file_quota_exceeded"
        assert "10 files, and 1,000 bytes" in error["message"]
        assert gate.purse.held == {}


async def test_a_list_of_files_counts_as_a_request_against_the_limits_of_its_key(gate: Gate) -> None:
    limited = replace(KEY, limits=scoped(Scope.KEY, KEY.key_id, Limits(requests_per_minute=5)))
    gate.keys.keys[hash_key(SECRET, PEPPER)] = limited
    response = await gate.ask(from_client(endpoint="files", model=""))
    assert response.WhichOneof("http_response") == "ok_response"
    assert GrantField.RESERVED_FOR in response.dynamic_metadata
    assert gate.purse.held == {}


async def test_what_is_kept_counts_as_a_request_against_the_limits_of_its_key(gate: Gate) -> None:
    within_limits(gate)
    gate.offers.offers = replace(gate.offers.offers, kinds={PROVIDER: ProviderKind.OPENAI})
    gate.registry.owned[KEY.org_id, KEY.mode] = {KeptName(KeptKind.FILE, ObjectId("file-1")): Place(PROVIDER)}
    response = await gate.ask(about_a_file())
    assert gate.counts.open == {REQUEST_ID: 0}
    assert response.dynamic_metadata[GrantField.RESERVED_TOKENS] == "0"
    gate.counts.exceeded = Limit.REQUESTS
    assert (await gate.ask(about_a_file())).denied_response.status.code == 429


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
async def test_nothing_that_is_kept_is_told_of_while_nobody_knows_whose_it_is(gate: Gate, trouble: Exception) -> None:
    gate.registry.trouble = trouble
    assert await gate.is_closed_to(about_a_file())


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
async def test_nobody_passes_without_a_hold_while_the_ledger_is_in_trouble(gate: Gate, trouble: Exception) -> None:
    gate.purse.trouble = trouble
    assert await gate.is_closed_to(from_client())


@pytest.mark.parametrize(
    "request_",
    [CheckRequest(), check_request(None), check_request({"endpoint": "chat"})],
    ids=["empty", "unseen", "no model"],
)
async def test_what_the_front_filter_has_not_seen_does_not_pass(gate: Gate, request_: CheckRequest) -> None:
    assert await gate.is_closed_to(request_)


async def test_a_fault_of_our_own_is_not_swallowed(gate: Gate) -> None:
    gate.purse.trouble = ZeroDivisionError("a fault")
    with pytest.raises(ZeroDivisionError):
        await gate.ask(from_client())


async def test_no_log_line_holds_the_key(gate: Gate, logged: Sequence[MutableMapping[str, object]]) -> None:
    gate.keys.trouble = OSError("gone")
    assert await gate.is_closed_to(from_client())
    assert [entry["event"] for entry in logged] == ["check_failed"]
    assert SECRET not in str(logged)


async def test_what_a_test_key_holds_is_held_in_the_test_ledger(gate: Gate) -> None:
    key = new_key(TEST_PREFIX, bytes).get_secret_value()
    gate.keys.keys[hash_key(key, PEPPER)] = replace(KEY, mode=Mode.TEST)
    response = await gate.ask(from_client(key, mode="test"))
    assert response.WhichOneof("http_response") == "ok_response"
    assert gate.purse.modes == [Mode.TEST]


async def test_a_test_key_on_a_live_route_is_refused_and_holds_nothing(gate: Gate) -> None:
    key = new_key(TEST_PREFIX, bytes).get_secret_value()
    gate.keys.keys[hash_key(key, PEPPER)] = replace(KEY, mode=Mode.TEST)
    assert (await gate.ask(from_client(key))).denied_response.status.code == 401
    assert (await gate.ask(from_client(SECRET, mode="test"))).denied_response.status.code == 401
    assert gate.purse.held == {}


async def test_a_use_of_a_key_is_noted_when_it_opens_something_and_only_then(gate: Gate) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    await gate.ask(from_client(model="gpt-99"))
    assert gate.uses.due(now) == {}
    await gate.ask(from_client())
    assert gate.uses.due(now) == {KEY.key_id: now}


NEW_ROUTE = Offering(MODEL, {PROVIDER: "up/new"})


def at_new_revision(gate: Gate) -> Offers:
    """A reading in which the model is what Envoy's route says already."""
    known = gate.offers.offers.by_model[MODEL]
    deployment = replace(known.prices[Endpoint.CHAT][0], upstream_model="up/new")
    return replace(gate.offers.offers, by_model={MODEL: replace(known, prices={Endpoint.CHAT: (deployment,)})})


async def test_a_request_whose_route_is_newer_than_the_reading_waits_for_the_next_ones(gate: Gate) -> None:
    gate.offers.next = [gate.offers.offers, at_new_revision(gate)]
    response = await gate.ask(from_client(offering=str(NEW_ROUTE)))
    assert response.WhichOneof("http_response") == "ok_response"
    assert gate.offers.next == []


async def test_a_request_whose_route_nobody_comes_to_know_is_told_to_try_again_and_holds_nothing(gate: Gate) -> None:
    response = await gate.ask(from_client(offering=str(NEW_ROUTE)))
    assert response.denied_response.status.code == 503
    assert response.dynamic_metadata[GrantField.ERROR_CODE] == "model_changing"
    assert gate.purse.held == {}


LIMITS = Limits(60, 5000, 3)


def within_limits(gate: Gate, limits: Limits = LIMITS) -> None:
    gate.keys.keys[hash_key(SECRET, PEPPER)] = replace(KEY, limits=scoped(Scope.KEY, KEY.key_id, limits))


def headers(response: CheckResponse) -> dict[str, str]:
    options = (*response.denied_response.headers, *response.ok_response.response_headers_to_add)
    return {option.header.key: option.header.value for option in options}


@pytest.mark.parametrize(("asked", "output"), [({}, 1000), ({"max_output_tokens": 30, "choices": 2}, 60)])
async def test_a_request_within_its_keys_limits_is_reserved_and_told_what_is_left(
    gate: Gate, asked: dict[str, int], output: int
) -> None:
    within_limits(gate)
    assert OUTPUT_TOKENS > 1000
    expected = 67 // 4 + output
    response = await gate.ask(from_client(SECRET, **asked))
    assert gate.counts.open == {REQUEST_ID: expected}
    assert response.dynamic_metadata[GrantField.RESERVED_TOKENS] == str(expected)
    assert response.dynamic_metadata[GrantField.RESERVED_AT] == "1700000000"
    assert response.dynamic_metadata[GrantField.RESERVED_FOR] == "key:key_1"
    assert headers(response) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "61s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": str(5000 - expected),
        "x-ratelimit-reset-tokens": "61s",
    }


@pytest.mark.parametrize(
    ("limit", "kind", "words"),
    [
        (Limit.REQUESTS, "requests", "limited to 60 requests per minute"),
        (Limit.TOKENS, "tokens", "limited to 5000 tokens per minute"),
        (Limit.CONCURRENCY, "requests", "limited to 3 requests at once"),
    ],
)
async def test_a_request_beyond_a_limit_is_refused_before_anything_is_held_for_it(
    gate: Gate, limit: Limit, kind: str, words: str
) -> None:
    within_limits(gate)
    gate.counts.exceeded = limit
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 429
    error = json.loads(response.denied_response.body)["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", kind)
    assert words in error["message"]
    told = headers(response)
    assert (told["retry-after"], told["x-ratelimit-remaining-requests"]) == ("7", "0")
    assert "x-should-retry" not in told
    assert GrantField.RESERVED_AT not in response.dynamic_metadata
    assert gate.purse.held == {}
    assert gate.metrics.get_sample_value("tollgate_ext_authz_limited_total", {"limit": limit, "scope": "key"}) == 1


async def test_a_request_that_money_refuses_keeps_its_reservation_until_envoy_says_that_it_is_over() -> None:
    gate = Gate(balance=0)
    within_limits(gate)
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 402
    assert response.dynamic_metadata[GrantField.RESERVED_AT] == "1700000000"
    assert headers(response)["x-ratelimit-remaining-requests"] == "59"


async def test_a_reservation_is_given_back_where_nobody_can_say_whether_there_is_money(gate: Gate) -> None:
    within_limits(gate)
    gate.purse.trouble = OSError("gone")
    assert await gate.is_closed_to(from_client())
    await gate.note()
    assert gate.counts.open == {}


async def test_limits_that_nobody_counts_together_are_kept_alone_and_let_no_money_through(gate: Gate) -> None:
    within_limits(gate, Limits(requests_per_minute=1))
    gate.counts.trouble = CountsUnavailableError("gone")
    assert (await gate.ask(from_client())).WhichOneof("http_response") == "ok_response"
    assert gate.purse.held == {REQUEST_ID: 1067}
    assert (await gate.ask(from_client())).denied_response.status.code == 429
    assert gate.metrics.get_sample_value("tollgate_ext_authz_limits_shared") == 0


async def test_while_nobody_counts_together_a_request_counts_as_all_that_it_may_write(gate: Gate) -> None:
    within_limits(gate, Limits(tokens_per_minute=10_000))
    gate.offers.offers = Offers(
        VERSION,
        {MODEL: replace(gate.offers.offers.by_model[MODEL], max_output_tokens=9_000)},
        {},
    )
    gate.counts.trouble = CountsUnavailableError("gone")
    response = await gate.ask(from_client())
    assert headers(response)["x-ratelimit-remaining-tokens"] == str(10_000 - 9_000 - 67 // 4)
    assert (await gate.ask(from_client())).denied_response.status.code == 429


async def test_a_key_without_limits_is_not_counted(gate: Gate) -> None:
    gate.counts.trouble = AssertionError("asked")
    assert headers(await gate.ask(from_client())) == {}


async def busy_gate(limits: Limits, slice_nano_usd: int = 1_000_000) -> Gate:
    """One at which a key with limits has asked before, so that it is lent more than it asks for."""
    gate = Gate(lease_ttl_ms=500)
    gate.slices.size = slice_nano_usd
    within_limits(gate, limits)
    await gate.ask(from_client(lease_wanted=True))
    return gate


async def test_a_lease_of_a_key_with_limits_counts_all_its_requests_and_says_what_is_left() -> None:
    gate = await busy_gate(Limits(requests_per_minute=60))
    response = await gate.ask(from_client(lease_wanted=True))
    grant = response.dynamic_metadata
    assert grant[GrantField.LEASE_USES] == 3
    assert gate.counts.counted == 1 + 4
    assert (grant[GrantField.RESERVED_FOR], grant[GrantField.RESERVED_AT]) == ("key:key_1", "1700000000")
    left = grant.fields[GrantField.RATE_LIMITS].struct_value.fields
    assert {name: value.string_value for name, value in left.items()} == {
        "limit-requests": "60",
        "remaining-requests": "55",
        "reset-requests": "61s",
    }
    assert headers(response)["x-ratelimit-remaining-requests"] == "55"


async def test_what_is_not_spent_of_a_lease_counts_no_more_and_its_money_comes_back() -> None:
    gate = await busy_gate(Limits(requests_per_minute=60))
    await gate.ask(from_client(lease_wanted=True))
    await gate.ask(from_client(lease_wanted=False, unspent="lease_1:2"))
    await gate.note()
    assert gate.counts.counted == 1 + 4 + 1 - 2


async def test_a_lease_is_no_larger_than_the_limits_allow_and_takes_no_more_money() -> None:
    gate = await busy_gate(Limits(requests_per_minute=60))
    gate.counts.uses_max = 2
    response = await gate.ask(from_client(lease_wanted=True))
    assert response.dynamic_metadata[GrantField.LEASE_USES] == 1
    gate.counts.uses_max = 1
    response = await gate.ask(from_client(lease_wanted=True))
    assert GrantField.LEASE_USES not in response.dynamic_metadata


async def test_a_lease_that_a_limit_refuses_is_a_refusal_and_costs_nothing() -> None:
    gate = await busy_gate(Limits(requests_per_minute=60))
    gate.counts.exceeded = Limit.REQUESTS
    response = await gate.ask(from_client(lease_wanted=True))
    assert response.denied_response.status.code == 429
    assert GrantField.LEASE_USES not in response.dynamic_metadata


async def test_requests_that_are_limited_at_once_are_asked_about_one_by_one() -> None:
    gate = await busy_gate(Limits(requests_per_minute=60, concurrency=5))
    response = await gate.ask(from_client(lease_wanted=True))
    assert GrantField.LEASE_USES not in response.dynamic_metadata
    assert len(gate.counts.open) == 1


def of_the_model(gate: Gate, limits: Limits) -> None:
    offer = replace(gate.offers.offers.by_model[MODEL], limits=scoped(Scope.MODEL, MODEL, limits))
    gate.offers.offers = Offers(VERSION, {MODEL: offer}, {})


async def test_who_has_no_money_takes_nothing_of_what_a_model_may_do_for_all() -> None:
    gate = Gate(balance=0)
    of_the_model(gate, Limits(requests_per_minute=60))
    response = await gate.ask(from_client())
    assert response.denied_response.status.code == 402
    # Envoy tells of the end of what the grant names, and of this it need not.
    assert response.dynamic_metadata[GrantField.RESERVED_FOR] == ""
    await gate.note()
    assert (gate.counts.open, gate.counts.counted) == ({}, 0)


async def test_a_request_with_a_test_key_takes_nothing_of_a_models_limits(gate: Gate) -> None:
    of_the_model(gate, Limits(requests_per_minute=1, concurrency=1))
    gate.counts.exceeded = Limit.CONCURRENCY
    test_key = replace(KEY, mode=Mode.TEST)
    secret = new_key(TEST_PREFIX, bytes).get_secret_value()
    gate.keys.keys[hash_key(secret, PEPPER)] = test_key
    response = await gate.ask(from_client(secret, mode="test"))
    assert response.WhichOneof("http_response") == "ok_response"


async def test_a_client_that_leaves_while_money_is_asked_for_leaves_no_place_taken(gate: Gate) -> None:
    within_limits(gate)
    gate.purse.trouble = asyncio.CancelledError()  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await gate.ask(from_client())
    await gate.note()
    assert gate.counts.open == {}


async def test_a_client_that_leaves_while_a_lease_is_counted_leaves_neither_money_nor_requests_taken() -> None:
    # What is left is good for ten requests of a lease, as large as they may be, and takes a fourth of it.
    gate = await busy_gate(Limits(requests_per_minute=60), slice_nano_usd=1067 + 10 * 4 * (1024 + 1000))
    gate.counts.go.clear()
    asking = asyncio.create_task(gate.ask(from_client(lease_wanted=True)))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.counts.go.set()
    await asyncio.sleep(0.01)
    await gate.note()
    await gate.note()
    # The one that asked counts, as any that was refused does.
    assert (gate.counts.open, gate.counts.counted) == ({}, 2)
    response = await gate.ask(from_client(lease_wanted=True))
    assert response.dynamic_metadata[GrantField.LEASE_USES] == 10 - 1


async def test_more_checks_than_may_be_under_way_are_refused_at_once() -> None:
    gate = Gate(checks_max=1)
    gate.keys.go.clear()
    asking = asyncio.create_task(gate.ask(from_client()))
    await asyncio.sleep(0)
    with pytest.raises(AbortedError):
        await gate.ask(from_client())
    assert gate.context.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.keys.go.set()
    assert (await asking).WhichOneof("http_response") == "ok_response"
    assert (await gate.ask(from_client())).WhichOneof("http_response") == "ok_response"


async def test_keys_that_are_not_known_here_yet_share_as_one_and_known_ones_pass_beside_them() -> None:
    gate = Gate(checks_max=4)
    assert (await gate.ask(from_client())).WhichOneof("http_response") == "ok_response"
    gate.keys.go.clear()
    strangers = [new_key(LIVE_PREFIX, Random(seed).randbytes).get_secret_value() for seed in range(3)]
    asking = [asyncio.create_task(gate.ask(from_client(stranger))) for stranger in strangers]
    await asyncio.sleep(0)
    assert (await gate.ask(from_client())).WhichOneof("http_response") == "ok_response"
    gate.keys.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers.pop(), AbortedError)
    assert gate.context.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [cast("CheckResponse", each).denied_response.status.code for each in answers] == [401, 401]
