"""The current snapshot, and waiting for a newer one."""

import asyncio

from control_plane.xds.snapshot import Snapshot


class SnapshotCache:
    """Holds the newest snapshot. A slow reader skips what lies between: only the newest matters."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._changed = asyncio.Condition()

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot, or None before the first."""
        return self._snapshot

    async def put(self, snapshot: Snapshot) -> None:
        """Replace the snapshot and wake who waits."""
        async with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()

    async def newer_than(self, seen: Snapshot | None) -> Snapshot:
        """The snapshot, as soon as it is another one than `seen`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._snapshot is not None and self._snapshot is not seen)
            assert self._snapshot is not None  # noqa: S101 - just waited for
            return self._snapshot
