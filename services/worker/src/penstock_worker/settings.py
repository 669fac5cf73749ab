"""What an operator can set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from penstock_shared.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """`PENSTOCK_*` variables of the worker."""

    root_key_file: Path
    models_dir: Path | None = None
    """The models that came with the installation: `<name>/penstock.json`."""
    model_store: Path | None = None
    """The models that operators added: `<name>/<version>/penstock.json`."""
    tuning_dir: Path | None = None
    """Where layouts that were found by trying are kept; unset: tried again at every start."""
    tuning_budget_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long layouts of one model are tried on this machine, once; 0 takes the likely best."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """`auto` takes a CUDA device where there is one."""
    processors: Annotated[int, Field(ge=1)] | None = None
    """Threads that may compute at once; None is what the container or the machine has."""
    memory_budget_bytes: Annotated[int, Field(ge=1)] | None = None
    """What all loaded models may take together; None is a share of what is free at the start."""
    preload: bool = True
    """Load what fits before the first job comes; the rest, or everything, comes on demand."""
    fetch_ahead: Annotated[int, Field(ge=1, le=4096)] = 64
    """Jobs of one model and lane that wait here. More makes better batches, and longer waits
    where several workers share the queue."""
    batch_window_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """How long a free slot waits for companions while another batch runs; idle: not at all."""
    delta_interval_ms: Annotated[float, Field(ge=0, le=1000)] = 30.0
    """Tokens that follow one another faster than this travel in one delta."""
    promote_after_s: Annotated[float, Field(gt=0)] = 5.0
    """A job that has waited so long moves up a lane."""
    echo_model: bool = False
    """Adds the model `echo`, which answers with the last user message, to measure the platform."""
    echo_tokens_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Pace of one `echo` answer; 0 is as fast as it goes."""
