"""The `models` bucket from the operator's side: read, compare and set."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from pydantic import ValidationError

from penstock.errors import OperatorError
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.kv import last_entry, purge, put, read_bucket

_ATTEMPTS = 20

Change = Callable[[ModelRecord | None], ModelRecord]


class _Standing(NamedTuple):
    record: ModelRecord | None
    revision: int


class Registry:
    """Every change is made to what stands, or not at all: two operators cannot undo each other."""

    def __init__(self, broker: Broker) -> None:
        """Use an open connection."""
        self.broker = broker

    async def records(self) -> list[ModelRecord]:
        """Every model, by name."""
        entries = await read_bucket(self.broker, Bucket.MODELS)
        return [_parse(name, entry) for name, entry in sorted(entries.items()) if entry.data]

    async def find(self, name: str) -> ModelRecord | None:
        """One model; None when there is none."""
        return (await self._standing(name)).record

    async def get(self, name: str) -> ModelRecord:
        """One model.

        Raises:
            OperatorError: There is none.
        """
        record = await self.find(name)
        if record is None:
            raise no_such_model(name)
        return record

    async def change(self, name: str, change: Change) -> ModelRecord:
        """Apply `change` to what stands, again if somebody was faster; returns the new record.

        Raises:
            OperatorError: `change` refuses, or others keep being faster.
        """
        for _ in range(_ATTEMPTS):
            standing = await self._standing(name)
            record = change(standing.record)
            if record == standing.record:
                return record
            value = record.model_dump_json().encode()
            try:
                await put(
                    self.broker, Bucket.MODELS, name, value, expected_revision=standing.revision
                )
            except SequenceConflictError:
                continue
            return record
        raise _contended(name)

    async def remove(self, name: str) -> ModelRecord:
        """Destroy a model's record; a marker stays, so that nobody announces it again.

        Raises:
            OperatorError: There is none, or others keep changing it.
        """
        for _ in range(_ATTEMPTS):
            standing = await self._standing(name)
            if standing.record is None:
                raise no_such_model(name)
            try:
                await purge(self.broker, Bucket.MODELS, name, expected_revision=standing.revision)
            except SequenceConflictError:
                continue
            return standing.record
        raise _contended(name)

    async def _standing(self, name: str) -> _Standing:
        entry = await last_entry(self.broker, Bucket.MODELS, name)
        if entry is None:
            return _Standing(None, 0)
        return _Standing(_parse(name, entry) if entry.data else None, entry.sequence)


@asynccontextmanager
async def registry(nats_url: str) -> AsyncIterator[Registry]:
    """Connect, and turn the platform's errors into the operator's."""
    try:
        broker = await Broker.connect(nats_url, name="operator")
        try:
            yield Registry(broker)
        finally:
            await broker.close()
    except PenstockError as error:
        raise OperatorError(error.message, f"(error code: {error.code})") from error


def no_such_model(name: str) -> OperatorError:
    """Say that nobody registered a model of that name."""
    return OperatorError(
        f"There is no model {name!r}.", "See `penstock models list` for those there are."
    )


def _parse(name: str, entry: StoredMessage) -> ModelRecord:
    try:
        return ModelRecord.model_validate_json(entry.data)
    except ValidationError as error:
        raise OperatorError(
            f"The record of {name} is not of this version.",
            "Use the `penstock` command of the version that the services run.",
        ) from error


def _contended(name: str) -> OperatorError:
    return OperatorError(
        f"The record of {name} keeps changing under us.", "Run the command again in a moment."
    )
