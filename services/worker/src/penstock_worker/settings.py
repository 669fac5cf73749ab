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
    """Holds one directory per model, each with a `penstock.json`."""
    device: Literal["cpu", "auto"] = "cpu"
    """`auto` takes a CUDA device where there is one."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Items in one batch. Past 8 a 30 M-parameter model gets slower on two cores (README)."""
    batch_window_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """How long a free slot waits for companions while another batch runs; idle: not at all."""
    delta_interval_ms: Annotated[float, Field(ge=0, le=1000)] = 30.0
    """Tokens that follow one another faster than this travel in one delta."""
    echo_model: bool = False
    """Adds the model `echo`, which answers with the last user message, to measure the platform."""
    echo_tokens_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Pace of one `echo` answer; 0 is as fast as it goes."""
