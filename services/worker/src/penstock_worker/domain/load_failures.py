"""Why models are not loaded, and for how long that holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock_shared.contracts.errors import PenstockError, TransientError
from penstock_worker.errors import ModelError

_TRY_AGAIN_AFTER_S: Final = 2.0
"""A load that failed for want of memory may succeed once others have let go of theirs."""


class LoadFailures:
    """The last failure of each model's serving version.

    A permanent one holds until the registry says something new of the model, so that a broken
    file is not read again for each job; a transient one for a moment.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` is the monotonic clock."""
        self._now_s = now_s
        self._failed: dict[str, tuple[PenstockError, float]] = {}

    def keep(self, name: str, error: PenstockError) -> None:
        """A load has failed."""
        self._failed[name] = error, self._now_s()

    def forget(self, name: str) -> None:
        """The model is another one now."""
        self._failed.pop(name, None)

    def of(self, name: str) -> PenstockError | None:
        """Why it cannot be loaded, as far as that still holds."""
        error, at_s = self._failed.get(name, (None, 0.0))
        if isinstance(error, TransientError) and self._now_s() - at_s >= _TRY_AGAIN_AFTER_S:
            return None
        return error

    def raise_for(self, name: str) -> None:
        """Tell a job why it gets no model.

        Raises:
            ModelError: it cannot be run.
            TransientError: it may be, later.
        """
        error = self.of(name)
        if isinstance(error, TransientError):
            raise TransientError(error.message, code=error.code)
        if error is not None:
            raise ModelError(error.message, code=error.code, param="model")
