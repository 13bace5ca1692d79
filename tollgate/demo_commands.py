"""What fills a local stack with something to look at.

What it does is in `traffic`, imported when it runs.
"""

from typing import Annotated, Final

import typer

from tollgate.invocation import DEFAULT_DATA_DIR
from tollgate.stack_commands import DataDir

NOUN: Final = "demo"
SECONDS: Final = 60
RATE: Final = 25

app = typer.Typer(name=NOUN, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def demo() -> None:
    """Fill a local stack with something to look at."""


@app.command()
def traffic(
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to send requests.")] = SECONDS,
    rate: Annotated[
        int, typer.Option(min=1, max=200, help="Requests in a second on average; twice as many at its busiest.")
    ] = RATE,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="The same one sends the same requests. [default: drawn, and told]", show_default=False
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have made-up organisations send what an hour of real ones has, in a minute.

    Chats, embeddings, pictures and speech, whole and as streams; providers that fail, clients that leave, and requests that are refused.
    The simulator answers all of them.
    """
    from tollgate.traffic import run

    run.traffic(data_dir, seconds=seconds, rate=rate, seed=seed)
