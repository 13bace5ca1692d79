"""Whatever comes in whatever order: Envoy's table of leases lets nothing pass that was not lent, and gives back no more than is left.

The script is the one that Envoy runs, in the same LuaJIT, by a clock that the test moves.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

LEASES = Path(__file__).parents[2] / "envoy" / "lua" / "leases.lua"

CLOCK = """
local now_ms = 0
local time = { [0] = { seconds = 0, nanoseconds = 0 } }
package.loaded.ffi = {
  cdef = function() end,
  new = function() return time end,
  C = { clock_gettime = function() time[0].seconds = math.floor(now_ms / 1000); time[0].nanoseconds = now_ms % 1000 * 1000000 end },
}
return function(ms) now_ms = ms end
"""


@dataclass(frozen=True)
class Lent:
    """A lease as ext_authz has lent it, and when Envoy asked."""

    uses: int
    body_bytes: int
    max_output_tokens: int
    ends_ms: int


@dataclass
class Worker:
    """One worker of Envoy, and the ext_authz that it asks."""

    now_ms: int = 0
    lent: dict[str, Lent] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)
    waiting: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lua = LuaRuntime(register_eval=False, register_builtins=False)
        self._set_clock = self._lua.execute(CLOCK)
        self._leases = self._lua.execute(LEASES.read_text())

    def burst(self, shape: str, body_bytes: int, max_output_tokens: int, requests: int) -> None:
        """So many requests at once."""
        for _ in range(requests):
            self.ask(shape, body_bytes, max_output_tokens)

    def ask(self, shape: str, body_bytes: int, max_output_tokens: int) -> None:
        """A request: it passes by a lease, or ext_authz is asked."""
        known = self._table(body_bytes=body_bytes, max_output_tokens=max_output_tokens, offering="offering")
        grant = self._leases.spend(shape, known)
        if grant is not None:
            lease = self.lent[grant.lease_id]
            self.spent[grant.lease_id] += 1
            assert self.now_ms < lease.ends_ms
            assert body_bytes <= lease.body_bytes
            assert max_output_tokens <= lease.max_output_tokens
            return
        number, _, unspent = self._leases.ask(shape, known)
        for part in (unspent or "").split(","):
            lease_id, _, uses = part.partition(":")
            if lease_id:
                assert lease_id not in self.returned
                self.returned[lease_id] += int(uses)
        self.waiting.append((number, self.now_ms))

    def answer(self, uses: int, body_bytes: int, max_output_tokens: int, ttl_ms: int) -> None:
        """ext_authz answers the question that waits longest, with a lease unless that is empty."""
        if not self.waiting:
            return
        number, asked_ms = self.waiting.pop(0)
        if uses == 0:
            self._leases.keep(number, self._table())
            return
        lease_id = f"lease_{number}"
        self.lent[lease_id] = Lent(uses, body_bytes, max_output_tokens, asked_ms + ttl_ms)
        grant = {"lease_id": lease_id, "lease_uses": uses, "lease_ttl_ms": ttl_ms}
        bounds = {"lease_body_bytes": body_bytes, "lease_max_output_tokens": max_output_tokens}
        self._leases.keep(number, self._table(**grant, **bounds))

    def wait(self, ms: int) -> None:
        """The time goes on."""
        self.now_ms += ms
        self._set_clock(self.now_ms)

    def _table(self, **fields: Any) -> Any:
        return self._lua.table_from(fields)


SIZES = st.sampled_from([1, 4096, 5000])
STEPS = st.one_of(
    st.tuples(st.just("burst"), st.tuples(st.sampled_from("ab"), SIZES, SIZES, st.integers(1, 12))),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 9), SIZES, SIZES, st.sampled_from([10, 500, 500]))),
    st.tuples(st.just("wait"), st.tuples(st.sampled_from([1, 9, 130, 490, 1200]))),
)


@settings(max_examples=500)
@given(st.lists(STEPS, min_size=4, max_size=40))
def test_no_history_lets_more_pass_than_was_lent_or_gives_back_what_was_spent(steps: list[tuple[str, Any]]) -> None:
    worker = Worker()
    for name, arguments in steps:
        getattr(worker, name)(*arguments)
    for lease_id, lease in worker.lent.items():
        assert worker.spent[lease_id] + worker.returned[lease_id] <= lease.uses
