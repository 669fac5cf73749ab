"""Tries layouts of a model on this machine, once, and remembers the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from penstock_shared.contracts.models import ModelLayout
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log
from penstock_worker.adapters.layout_store import LayoutKey, LayoutStore
from penstock_worker.domain.tuning import Reading, SearchSpace, Step, search
from penstock_worker.errors import EngineMemoryError


class Trial(Protocol):
    """The model, loaded in one layout, to be measured."""

    def run(self, batch: int, tokens: int) -> None:
        """Run as many batches side by side as the layout has slots, each of `batch` items.

        Every item generates exactly `tokens` tokens after a short prompt of the engine's making;
        for an encoder it is a text of that length. Returns when all have ended.

        Raises:
            EngineMemoryError: there is not enough memory.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


Load = Callable[[ModelLayout], Trial]


class Tuner:
    """Finds out how models run best here. Blocks: call it in a thread."""

    def __init__(self, store: LayoutStore, clock: Clock, *, budget_s: float) -> None:
        self._store = store
        self._clock = clock
        self._budget_s = budget_s
        """For each model, its first load apart; 0 takes the likely best untried."""

    def layout(self, key: LayoutKey, space: SearchSpace, load: Load) -> ModelLayout:
        """What is known of the model, or else what trying it shows.

        Raises:
            PermanentError: `load` found that the model cannot be run.
            EngineMemoryError: not even the smallest batch fits.
        """
        if self._budget_s <= 0:
            return space.layouts[0]
        if (known := self._store.find(key)) is not None:
            return known
        with self._store.alone():
            if (known := self._store.find(key)) is not None:
                return known  # another worker has tried it while this one waited
            began_s = self._clock.monotonic_s()
            layout = tune(space, load, self._clock, budget_s=self._budget_s)
            took_s = self._clock.monotonic_s() - began_s
            log().info(
                "model.tuned", model=key.model, took_s=round(took_s, 3), **layout.model_dump()
            )
            self._store.keep(key, layout)
            return layout


def tune(space: SearchSpace, load: Load, clock: Clock, *, budget_s: float) -> ModelLayout:
    """The best layout of `space` that `budget_s` of trying finds.

    The budget begins after the first load, which the model needs in any case.

    Raises:
        EngineMemoryError: not even the smallest batch fits.
    """
    bench = _Bench(load, clock, budget_s)
    steps = search(space, budget_s)
    try:
        step = next(steps)
        while True:
            step = steps.send(bench.read(step))
    except StopIteration as done:
        layout: ModelLayout = done.value
        return layout
    finally:
        bench.close()


class _Bench:
    """Runs steps, with one layout loaded at a time."""

    def __init__(self, load: Load, clock: Clock, budget_s: float) -> None:
        self._load = load
        self._clock = clock
        self._budget_s = budget_s
        self._ends_s = math.inf
        self._layout: ModelLayout | None = None
        self._trial: Trial | None = None
        self._has_run = False

    def read(self, step: Step) -> Reading:
        """Run a step, and say what it took."""
        trial, load_s = self._loaded(step.layout)
        try:
            round_s = min(self._round_s(trial, step) for _ in range(step.rounds))
        except EngineMemoryError:
            if not self._has_run:
                raise
            round_s = math.inf
        self._has_run = True
        now_s = self._clock.monotonic_s()
        return Reading(round_s=round_s, load_s=load_s, left_s=max(0.0, self._ends_s - now_s))

    def close(self) -> None:
        """Free what is loaded."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _loaded(self, layout: ModelLayout) -> tuple[Trial, float]:
        if self._trial is not None and layout == self._layout:
            return self._trial, 0.0
        self.close()
        began_s = self._clock.monotonic_s()
        trial = self._trial = self._load(layout)
        self._layout = layout
        loaded_s = self._clock.monotonic_s()
        if math.isinf(self._ends_s):
            self._ends_s = loaded_s + self._budget_s
        return trial, loaded_s - began_s

    def _round_s(self, trial: Trial, step: Step) -> float:
        began_s = self._clock.monotonic_s()
        trial.run(step.batch, step.tokens)
        return max(self._clock.monotonic_s() - began_s, 1e-6)
