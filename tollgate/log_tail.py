"""Reading a service's log: its end, and what is added to it."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.2


def follow(log: Path, lines: int) -> Iterator[str]:
    """The last lines of a log and whatever is written to it, also after it was put aside for a new one. Never ends."""
    file = log.open(encoding="utf-8", errors="replace")
    yield "".join(deque(file, maxlen=lines))
    while True:
        if text := file.read():
            yield text
        elif log.exists() and log.stat().st_ino != os.fstat(file.fileno()).st_ino:
            file.close()
            file = log.open(encoding="utf-8", errors="replace")
        else:
            time.sleep(_POLL_S)
