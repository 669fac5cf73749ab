"""What the platform knows of a model: the value in the `models` bucket, and `penstock.json`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock_shared.contracts.ids import ModelName
from penstock_shared.contracts.usage import Price

QUARANTINE_AFTER: Final = 3
"""A model whose process died on so many different requests is not run again until promoted."""

Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Names a directory, too."""


class Engine(StrEnum):
    """What runs a model."""

    CTRANSLATE2 = "ctranslate2"
    ECHO = "echo"  # answers with the message itself: measures the platform, not a model


class ModelKind(StrEnum):
    """What a model makes of its input."""

    TEXT = "text"  # messages in, an answer out: a decoder
    EMBEDDING = "embedding"  # texts in, a vector for each out: an encoder
    TRANSLATION = "translation"  # one text in, another out: an encoder and a decoder


class EmbeddingOptions(BaseModel):
    """How the encoder's output becomes one vector per text."""

    model_config = ConfigDict(frozen=True)

    dimensions: Annotated[int, Field(gt=0)]
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    shortest: Annotated[int, Field(gt=0)] | None = None
    """To how few numbers a vector may be cut; None where it keeps its meaning only whole. For
    models that were trained so (Matryoshka, https://arxiv.org/abs/2205.13147)."""


class TranslationOptions(BaseModel):
    """Tokens that go around the source and begin the target, as the model's training had them."""

    model_config = ConfigDict(frozen=True)

    source_prefix: tuple[str, ...] = ()
    source_suffix: tuple[str, ...] = ("</s>",)
    target_prefix: tuple[str, ...] = ()


class ModelLimits(BaseModel):
    """What one model may take of one worker; None leaves it to tuning or to the machine."""

    model_config = ConfigDict(frozen=True)

    slots: Annotated[int, Field(ge=1, le=64)] | None = None
    """Batches side by side."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Items in one batch."""
    queue: Annotated[int, Field(ge=1)] | None = None
    """Jobs that may wait for it, in all workers together: above it the router refuses."""
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """What it is taken to need; None: the size of its files and a margin."""


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: ModelName
    version: Version
    engine: Engine = Engine.CTRANSLATE2
    kind: ModelKind = ModelKind.TEXT
    parameters: int
    context_tokens: Annotated[int, Field(gt=0)]
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """Of the files, together."""
    embedding: EmbeddingOptions | None = None
    translation: TranslationOptions | None = None


class ModelRecord(_Described):
    """One model as every service sees it: `version` is the one that serves."""

    price: Price
    created_unix_s: int = 0
    versions: tuple[Version, ...] = ()
    """Every version that is registered, oldest first; `penstock models promote` picks one."""
    limits: ModelLimits = ModelLimits()
    origin: Literal["bundled", "operator"] = "bundled"
    """Bundled records follow their directory; an operator's are changed by operators only."""
    crashed_on: tuple[str, ...] = ()
    """Requests on which its process died until they were given up."""

    @property
    def quarantined(self) -> bool:
        """Whether it has killed its process too often to be run."""
        return len(set(self.crashed_on)) >= QUARANTINE_AFTER


class ModelManifest(_Described):
    """`penstock.json` beside the weights."""

    price_input_microusd_per_1k: int
    price_output_microusd_per_1k: int
    sha256: dict[str, str] = {}

    def record(self) -> ModelRecord:
        """What the `models` bucket holds of a model with this version alone."""
        described = {name: getattr(self, name) for name in _Described.model_fields}
        return ModelRecord(
            **described,
            price=Price(
                input_microusd_per_1k=self.price_input_microusd_per_1k,
                output_microusd_per_1k=self.price_output_microusd_per_1k,
            ),
            versions=(self.version,),
        )


class ModelLayout(BaseModel):
    """How a model sits on one machine, found by trying (`tokens_per_s` is what the trial gave)."""

    model_config = ConfigDict(frozen=True)

    device: Literal["cpu", "cuda"] = "cpu"
    compute_type: str
    slots: Annotated[int, Field(ge=1)]
    """Batches side by side (CTranslate2's inter_threads)."""
    threads: Annotated[int, Field(ge=0)]
    """Threads of each (intra_threads); 0 does not compute."""
    max_batch: Annotated[int, Field(ge=1)]
    tokens_per_s: float | None = None


class ModelState(StrEnum):
    """Where one version of a model stands in one worker."""

    UNLOADED = "unloaded"  # known, and loaded when the first job comes
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class ResidentModel(BaseModel):
    """One model in one worker."""

    model_config = ConfigDict(frozen=True)

    name: ModelName
    version: Version
    state: ModelState
    why: str | None = None
    """Of FAILED."""
    memory_bytes: int = 0
    layout: ModelLayout | None = None
    running: int = 0
    waiting: int = 0


class WorkerModels(BaseModel):
    """A worker's answer on `models.state`."""

    model_config = ConfigDict(frozen=True)

    instance: str
    memory_budget_bytes: int
    models: tuple[ResidentModel, ...]
