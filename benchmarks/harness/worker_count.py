"""How many worker processes a stack has, over time, from its own run file."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Final, Self

_EVERY_S: Final = 0.05


class WorkersStayedError(Exception):
    """Workers that should have gone were still there."""


@dataclass
class WorkerCount:
    """Looks twenty times a second, in a thread of its own, for as long as the context lasts."""

    run_file: Path
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Time of `perf_counter`, and the processes that had a pid then."""
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._look()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def wait_until_none(self, timeout_s: float) -> None:
        """Return when no worker is left.

        Raises:
            WorkersStayedError: some were still there at the end of the time.
        """
        give_up_s = perf_counter() + timeout_s
        while self.samples[-1][1]:
            if perf_counter() > give_up_s:
                msg = f"{self.samples[-1][1]} workers did not go within {timeout_s:.0f} s"
                raise WorkersStayedError(msg)
            sleep(_EVERY_S)

    def _keep_looking(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        processes = json.loads(self.run_file.read_text())["processes"]
        running = [p for p in processes if p["name"].startswith("worker-") and p["pid"]]
        self.samples.append((perf_counter(), len(running)))


def worker_seconds(
    samples: Sequence[tuple[float, int]], begin_s: float, end_s: float = float("inf")
) -> float:
    """The workers that ran between two moments times how long; each sample holds to the next.

    Raises:
        ValueError: the first sample came after the beginning.
    """
    if not samples or samples[0][0] > begin_s:
        msg = "nobody counted when it began"
        raise ValueError(msg)
    spans = zip(samples, [*samples[1:], samples[-1]], strict=True)
    return sum(
        count * max(0.0, min(until_s, end_s) - max(at_s, begin_s))
        for (at_s, count), (until_s, _) in spans
    )
