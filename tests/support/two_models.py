"""Two models on one worker: `clumsy`, whose answers fail a schema, and `careful`, whose do not."""

from __future__ import annotations

from typing import Any, Final

import pytest
from tests.support.router import put_model
from tests.support.worker_rig import PRICE

from penstock_shared.contracts.models import Engine, ModelRecord
from penstock_shared.contracts.requests import NextAttempt
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.adapters.model_shelf import ShelfWithEcho
from penstock_worker.domain.resident import Resident

SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
ASKED: Final = '{"name": "Ada"}'
"""What an echo answers to it meets the schema; all but the last word of it does not."""
DEARER: Final = Price(input_microusd_per_1k=100, output_microusd_per_1k=200)
PLAN: Final = (NextAttempt(model="careful", price=DEARER),)


class ClumsyEcho(EchoEngine):
    """Forgets the last word."""

    def encode(self, content: Any) -> list[str]:
        return super().encode(content)[:-1]


async def put_two_models(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in the bucket; workers of the test's own process run them."""
    for name, price in (("clumsy", PRICE), ("careful", DEARER)):
        record = ModelRecord(
            name=name,
            version="1",
            engine=Engine.ECHO,
            parameters=0,
            context_tokens=64,
            price=price,
        )
        await put_model(broker, record)
    load = ShelfWithEcho.load

    def loaded(shelf: ShelfWithEcho, record: ModelRecord) -> Resident:
        resident = load(shelf, record)
        if record.name == "clumsy":
            resident.engine = ClumsyEcho()
        return resident

    monkeypatch.setattr(ShelfWithEcho, "load", loaded)
