"""What providers were sent in the place of clients' own inputs: it is ours, and removed once its batch is over, whatever has become of that.

It is nobody's, so one that a provider goes on keeping can be asked for by nobody.
"""

from datetime import timedelta
from typing import Final

from billing_sink.batches.keepers import KeeperError, Keepers
from billing_sink.batches.model import LOST_AFTER, Batch
from billing_sink.batches.postgres_batches import PostgresBatches
from gateway_core.clock import Now
from gateway_core.logs import Logger

TRIED_FOR: Final = timedelta(days=2)
"""For so long after the end of its batch a provider is asked again to remove one."""
AT_ONCE_MAX: Final = 100
"""In one round, those first whose batches have ended last."""


class SentInputs:
    """Removes them."""

    def __init__(self, batches: PostgresBatches, keepers: Keepers, *, now: Now, log: Logger) -> None:
        self._batches = batches
        self._keepers = keepers
        self._now = now
        self._log = log

    async def remove(self) -> None:
        """Remove those of batches that are over, as far as their providers answer.

        Raises:
            asyncpg.PostgresError, OSError: the rest waits for the next time.
        """
        for batch in await self._batches.with_input(self._now() - TRIED_FOR, limit=AT_ONCE_MAX):
            try:
                is_gone = await self._remove(batch)
            except KeeperError as error:
                self._log.warning("batch_input_left", batch_id=batch.batch_id, status=error.status)
                continue
            if is_gone:
                await self._batches.input_removed(batch.batch_id, self._now())

    async def _remove(self, batch: Batch) -> bool:
        file_id = batch.sent_file_id
        if file_id is None:
            # Its upload has failed, or its answer was lost; what is under way may still arrive.
            if self._now() < batch.created_at + LOST_AFTER:
                return False
            file_id = await self._keepers.find_input(batch.provider, batch.batch_id)
        if file_id is not None:
            await self._keepers.delete(batch.provider, file_id)
        return True
