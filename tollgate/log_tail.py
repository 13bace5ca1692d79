"""Reading a service's log: its end, and what is added to it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.2


def follow(log: Path) -> Iterator[str]:
    """What is written to a log from now on, also after it has been put aside for a new one. Never ends by itself."""
    file = log.open(encoding="utf-8", errors="replace")
    file.seek(0, os.SEEK_END)
    while True:
        if text := file.read():
            yield text
        elif log.exists() and log.stat().st_ino != os.fstat(file.fileno()).st_ino:
            file.close()
            file = log.open(encoding="utf-8", errors="replace")
        else:
            time.sleep(_POLL_S)
