"""`tollgate`: the command line of the gateway."""

import sys

import typer

from tollgate.api.document import Document
from tollgate.errors import CommandError
from tollgate.root import root


def main() -> None:
    """The entry point of the command `tollgate`."""
    try:
        root(Document.packaged())()
    except CommandError as error:
        _end(error, error.exit_code)
    except Exception as error:
        from tollgate.local import exit_code_of  # noqa: PLC0415 - what it knows is slow to import, and may not be needed

        code = exit_code_of(error)
        if code is None:
            raise
        _end(error, code)


def _end(error: Exception, code: int) -> None:
    typer.echo(f"Error: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
