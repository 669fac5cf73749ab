"""Where CTranslate2 can compute on this machine, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import ctranslate2

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.adapters.cuda_memory import cuda_memory_bytes

_PREFERRED: Final = {
    "cpu": ("int8", "int8_float32", "int16", "float32"),
    "cuda": ("int8_float16", "float16", "int8_float32", "float32"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What models are loaded for."""

    device: Literal["cpu", "cuda"]
    compute_type: str
    engine_version: str
    """CTranslate2's: another one may be fast elsewhere."""
    memory_bytes: int | None
    """Of a device with memory of its own, if its driver tells."""


def choose_target(wanted: Literal["cpu", "cuda", "auto"]) -> Target:
    """The device, and the fastest type of number that it supports.

    Raises:
        PermanentError: CUDA was asked for and there is none.
    """
    present = ctranslate2.get_cuda_device_count() > 0
    if wanted == "cuda" and not present:
        msg = (
            "PENSTOCK_DEVICE=cuda, but CTranslate2 sees no CUDA device: check the driver and "
            "that libcublas is installed, or set PENSTOCK_DEVICE=cpu or auto."
        )
        raise PermanentError(msg, code="no_cuda_device")
    device: Literal["cpu", "cuda"] = "cuda" if present and wanted != "cpu" else "cpu"
    supported = ctranslate2.get_supported_compute_types(device)
    compute_type = next((name for name in _PREFERRED[device] if name in supported), "float32")
    memory_bytes = cuda_memory_bytes() if device == "cuda" else None
    return Target(device, compute_type, ctranslate2.__version__, memory_bytes)
