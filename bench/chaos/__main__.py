"""`make chaos`: kill -9 of every part under load, ten times each, and an outage of Postgres; is everything accounted for?

Prints a table, and ends with 1 if anything is lost, doubled, below zero or wrong in the books. The seed is printed; with the
same one the same is killed at the same moments of a load that is asked in the same order.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.chaos import report
from bench.chaos.run import Findings, run
from tests.support.stack import running_stack


async def _on_a_stack(seed: int, arguments: argparse.Namespace, console: Console) -> Findings:
    with tempfile.TemporaryDirectory(prefix="tollgate-chaos-") as directory:
        async with running_stack(Path(directory) / "stack") as stack:
            return await run(
                stack,
                seed=seed,
                rounds=arguments.rounds,
                outage_s=arguments.outage_s,
                calm_s=arguments.calm_s,
                say=console.print,
            )


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each process is killed (default 10)")
    parser.add_argument("--outage-s", type=float, default=30.0, help="how long Postgres is away (default 30)")
    parser.add_argument("--calm-s", type=float, default=20.0, help="how long settlement is measured (default 20)")
    parser.add_argument("--seed", type=int, help="of an earlier run")
    arguments = parser.parse_args()
    console = Console(width=200)
    seed = int.from_bytes(os.urandom(4)) if arguments.seed is None else arguments.seed
    console.print(f"seed {seed}")
    findings = asyncio.run(_on_a_stack(seed, arguments, console))
    report.print_all(console, findings)
    sys.exit(0 if findings.is_good else 1)


if __name__ == "__main__":
    main()
