"""A batch that its owner wants no more: the provider begins no further line of it, and what it has by then is settled as ever."""

from billing_sink.batches.keepers import KeeperError, Keepers
from billing_sink.batches.model import Batch, BatchRefusedError
from billing_sink.batches.postgres_batches import PostgresBatches
from gateway_core.errors import KEEPER_PAUSED, NOT_TO_BE_CANCELLED


class Cancellation:
    """Cancels batches."""

    def __init__(self, batches: PostgresBatches, keepers: Keepers) -> None:
        self._batches = batches
        self._keepers = keepers

    async def cancel(self, batch: Batch) -> None:
        """Have its provider cancel a batch, and remember what it says.

        Raises:
            BatchRefusedError: there is nothing to cancel, or nobody is asked.
            KeeperError: nobody knows whether it is cancelled; its owner may ask again.
            asyncpg.PostgresError, OSError: it is cancelled, which is heard of later.
        """
        if batch.is_over or batch.ended_at is not None or batch.upstream_id is None:
            raise BatchRefusedError(NOT_TO_BE_CANCELLED)
        try:
            said = await self._keepers.cancel(batch.provider, batch.upstream_id)
        except KeeperError as error:
            if error.is_paused:
                raise BatchRefusedError(KEEPER_PAUSED) from error
            if error.is_refusal:
                raise BatchRefusedError(NOT_TO_BE_CANCELLED) from error
            raise
        await self._batches.heard(batch.batch_id, batch.upstream_id, said)
