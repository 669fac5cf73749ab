"""What CTranslate2's exceptions mean: it raises RuntimeError and ValueError for everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.errors import EngineError, EngineMemoryError

_OUT_OF_MEMORY: Final = ("out of memory", "alloc_failed", "bad_alloc", "cannot allocate")


@contextmanager
def load_errors(directory: Path) -> Iterator[None]:
    """Around loading a model.

    Raises:
        EngineMemoryError: there is not enough memory.
        PermanentError: the files are incomplete or not CTranslate2's.
    """
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        if _is_memory(error):
            raise EngineMemoryError("There is not enough memory to load the model.") from error
        msg = f"CTranslate2 cannot load {directory}: {error}. Export the model again."
        raise PermanentError(msg, code="model_unloadable") from error


@contextmanager
def engine_errors() -> Iterator[None]:
    """Around running a batch.

    Raises:
        EngineMemoryError: there is not enough memory for it.
        EngineError: the engine failed.
    """
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        if _is_memory(error):
            raise EngineMemoryError("The batch did not fit into memory.") from error
        raise EngineError("The engine failed on this batch.") from error


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)
