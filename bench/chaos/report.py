"""What people read in the end."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench.chaos.books import Returned, Watch
from bench.chaos.outage import Outage
from bench.chaos.rounds import VICTIMS, Round, Settlement
from bench.chaos.run import Findings
from gateway_core.money import format_usd

COLUMNS = ("kills", "requests", "settled", "released", "estimated", "refused", "expired", "unanswered")
WRONG = ("lost", "doubled", "unmetered", "mistaken")


def print_rounds(console: Console, rounds: Sequence[Round]) -> None:
    """A row for each victim, and one for all rounds."""
    table = Table(title="kill -9 under load", title_justify="left")
    table.add_column("killed")
    for column in (*COLUMNS, *WRONG, "cut or 503", "served again s (median, slowest)", "back s (slowest)"):
        table.add_column(column, justify="right")
    for victim in VICTIMS:
        table.add_row(victim, *_row([each for each in rounds if each.victim == victim]))
    table.add_row("sum", *_row(rounds), style="bold")
    console.print(table)


def _row(rounds: Sequence[Round]) -> Iterable[str]:
    yield str(len(rounds))
    yield str(sum(each.verdict.requests for each in rounds))
    for outcome in COLUMNS[2:]:
        yield str(sum(each.verdict.outcomes[outcome] for each in rounds))
    for wrong in WRONG:
        yield str(sum(len(getattr(each.verdict, wrong)) for each in rounds))
    yield str(sum(each.refused for each in rounds))
    served = sorted(each.served_s for each in rounds)
    yield f"{served[len(served) // 2]:.1f}, {served[-1]:.1f}" if served else "-"
    yield f"{max((each.back_s for each in rounds), default=0):.1f}"


def print_settlement(console: Console, found: Settlement) -> None:
    """How long settlement takes, in one line."""
    console.print(
        f"Nothing killed: {found.requests} requests, in the ledger after p50 {found.p50_s:.2f} s,"
        f" p99 {found.p99_s:.2f} s, at the latest {found.max_s:.2f} s"
    )


def print_outage(console: Console, found: Outage) -> None:
    """What an outage of Postgres did."""
    status, content_type, retry_after = found.api
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.verdict.outcomes.items()))
    console.print(
        f"Postgres away for {found.seconds:.0f} s: {found.served} requests served from slices, {found.refused} refused"
        f" ({found.refused_of_plenty} of them to who has plenty),"
        f" {found.unmetered} let through unmetered; a key never seen before: {found.stranger}; the API: {status} {content_type},"
        f" Retry-After {retry_after}; an ext_authz started meanwhile ended with {found.newcomer_exit}; Envoy"
        f" {'kept' if found.is_configuration_kept else 'LOST'} its configuration. Everybody served again after"
        f" {found.served_s:.1f} s; of {found.verdict.requests} requests: {outcomes};"
        f" lost {len(found.verdict.lost)}, doubled {len(found.verdict.doubled)}"
    )


def print_end(console: Console, watch: Watch, returned: Returned, rounds: Sequence[Round]) -> None:
    """The balances, and what was held in vain."""
    unflushed_s = max((each.verdict.unflushed_s for each in rounds), default=0.0)
    console.print(
        f"Balances below zero: {watch.below_zero} in {watch.samples} looks. With Envoy died the lines of requests that had ended"
        f" up to {unflushed_s:.2f} s before. Unspent or unheard of, {returned.holds} holds"
        f" and {format_usd(returned.slices_nano_usd)} USD of slices went back; the platform absorbed {format_usd(returned.absorbed_nano_usd)} USD."
    )
    console.print(
        "Entries sum to zero, `tollgate books verify` is green, ClickHouse equals Postgres: after each round."
    )


def print_all(console: Console, findings: Findings) -> None:
    """Everything, in the order in which it was found."""
    print_settlement(console, findings.settlement)
    print_rounds(console, findings.rounds)
    print_outage(console, findings.outage)
    print_end(console, findings.watch, findings.returned, findings.rounds)
