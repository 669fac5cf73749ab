"""The models that are registered, from the bucket `models`."""

from __future__ import annotations

from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker


class NatsModels:
    """`KnownModels`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def names(self) -> set[str]:
        """Of every model that somebody could name. May raise UnavailableError."""
        entries = await kv.read_bucket(self._broker, Bucket.MODELS)
        return {name for name, entry in entries.items() if entry.data}
