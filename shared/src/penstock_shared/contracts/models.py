"""What the platform knows of a model: the value in the `models` bucket, and `penstock.json`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.ids import ModelName
from penstock_shared.contracts.usage import Price


class Engine(StrEnum):
    """What runs a model."""

    CTRANSLATE2 = "ctranslate2"
    ECHO = "echo"  # answers with the message itself: measures the platform, not a model


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: ModelName
    version: str
    engine: Engine = Engine.CTRANSLATE2
    parameters: int
    context_tokens: Annotated[int, Field(gt=0)]


class ModelRecord(_Described):
    """One model as every service sees it."""

    price: Price
    created_unix_s: int = 0


class ModelManifest(_Described):
    """`penstock.json` beside the weights."""

    price_input_microusd_per_1k: int
    price_output_microusd_per_1k: int
    sha256: dict[str, str] = {}

    def record(self) -> ModelRecord:
        """What the `models` bucket holds."""
        return ModelRecord(
            name=self.name,
            version=self.version,
            engine=self.engine,
            parameters=self.parameters,
            context_tokens=self.context_tokens,
            price=Price(
                input_microusd_per_1k=self.price_input_microusd_per_1k,
                output_microusd_per_1k=self.price_output_microusd_per_1k,
            ),
        )
