"""Remembers which requests a model's process died on: three of them, and it is quarantined."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock_shared.contracts.errors import TransientError, UnavailableError
from penstock_shared.contracts.models import QUARANTINE_AFTER, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.kv import last_entry, put
from penstock_shared.runtime.telemetry import log

_KEPT: Final = 2 * QUARANTINE_AFTER
"""Requests that a record names at most; never fewer than it takes."""
_ATTEMPTS: Final = 20
_CATCH_UP_S: Final = 0.02


class NatsModelCrashes:
    """Writes `ModelRecord.crashed_on` in the bucket `models`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def blame(self, model: str, request_id: str) -> bool:
        """Add a request that was given up to its model's record; True if it is quarantined now.

        Repeating it changes nothing, and neither does a model that was removed.

        Raises:
            TransientError: the bucket does not answer, or others write to it all the time.
        """
        for _ in range(_ATTEMPTS):
            entry = await last_entry(self._broker, Bucket.MODELS, model)
            if entry is None or not entry.data:
                return False
            record = ModelRecord.model_validate_json(entry.data)
            if request_id in record.crashed_on:
                return record.quarantined
            blamed = _with_crash(record, request_id)
            try:
                await put(
                    self._broker,
                    Bucket.MODELS,
                    model,
                    blamed.model_dump_json().encode(),
                    expected_revision=entry.sequence,
                )
            except SequenceConflictError:  # an operator, or another worker with another request
                await asyncio.sleep(_CATCH_UP_S)
                continue
            log().error(
                "model.crashed", model=model, request_id=request_id, quarantined=blamed.quarantined
            )
            return blamed.quarantined
        raise _undecided()


def _with_crash(record: ModelRecord, request_id: str) -> ModelRecord:
    crashed_on = (*record.crashed_on, request_id)[-_KEPT:]
    return record.model_copy(update={"crashed_on": crashed_on})


def _undecided() -> TransientError:
    msg = "The model's record is being changed by others: try again."
    return UnavailableError(msg, code="event_log_unavailable")
