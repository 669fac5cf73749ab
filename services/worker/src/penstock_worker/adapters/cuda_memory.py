"""How much memory the CUDA device has, asked of its driver, since CTranslate2 does not tell."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

_DRIVER: Final = "libcuda.so.1"
_SUCCESS: Final = 0


def cuda_memory_bytes(
    load_library: Callable[[str], Any] = ctypes.CDLL, ordinal: int = 0
) -> int | None:
    """All memory of the device; None when there is no driver, or it refuses.

    Source: NVIDIA's CUDA driver API, `cuDeviceTotalMem`; it needs no context on the device.
    """
    try:
        driver = load_library(_DRIVER)
    except OSError:
        return None
    device, total = ctypes.c_int(), ctypes.c_size_t()
    asked: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), ordinal),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(total), device),
    )
    return total.value if all(ask() == _SUCCESS for ask in asked) else None
