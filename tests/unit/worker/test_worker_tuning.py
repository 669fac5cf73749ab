"""Tuning without a model: a machine of numbers answers, and time is what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import ctranslate2
import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelLimits
from penstock_worker.adapters import ctranslate2_devices
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.adapters.tuner import Trial, tune
from penstock_worker.domain.resident import Resident
from penstock_worker.domain.tuning import REGROW_AFTER_BATCHES, SearchSpace, candidates
from penstock_worker.errors import EngineMemoryError

TOKENS_PER_S = {1: 854, 2: 1351, 4: 1982, 8: 2172, 16: 2060, 32: 2192, 64: 2100}
"""Measured: 30 M parameters, two cores, two slots."""

Speed = Callable[[ModelLayout, int], float]


@dataclass
class SlowMachine:
    """A clock, and trials that move it on by what they would take."""

    speed: Speed
    load_s: float = 0.01
    most_items: int | None = None
    now_s: float = 100.0
    loads: list[ModelLayout] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    closed: int = 0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def monotonic_s(self) -> float:
        return self.now_s

    def load(self, layout: ModelLayout) -> Trial:
        self.loads.append(layout)
        self.now_s += self.load_s
        return _Trial(self, layout)


@dataclass
class _Trial:
    machine: SlowMachine
    layout: ModelLayout

    def run(self, batch: int, tokens: int) -> None:
        if self.machine.most_items is not None and batch > self.machine.most_items:
            raise EngineMemoryError("Full.")
        self.machine.runs.append((batch, tokens))
        items = self.layout.slots * batch
        self.machine.now_s += items * tokens / self.machine.speed(self.layout, batch)

    def close(self) -> None:
        self.machine.closed += 1


def space(processors: int = 2, limits: ModelLimits | None = None, **changes) -> SearchSpace:
    given = {"device": "cpu", "kind": ModelKind.TEXT, "compute_type": "int8"} | changes
    return candidates(processors, limits=limits or ModelLimits(), **given)


def as_measured(layout: ModelLayout, batch: int) -> float:
    """Two threads per batch are 50 times slower than a batch per processor."""
    return TOKENS_PER_S[batch] / (1 if layout.threads == 1 else 50)


@pytest.mark.parametrize("processors", [1, 2, 3, 6, 16, 64])
@pytest.mark.parametrize("slots", [None, 1, 2, 5])
def test_no_layout_takes_more_threads_than_there_are_processors(processors: int, slots):
    """A batch per processor comes first; a limit on slots binds, and leaves threads to try."""
    layouts = space(processors, ModelLimits(slots=slots)).layouts
    assert all(one.slots * one.threads <= processors for one in layouts)
    most = min(processors, slots or processors)
    assert (layouts[0].slots, layouts[0].threads) == (most, 1)
    assert all(one.slots <= most for one in layouts)
    assert layouts[-1].threads == processors
    assert len(set(layouts)) == len(layouts)


def test_a_limit_on_items_binds():
    """Neither what is tried nor what is kept untried exceeds `max_batch`."""
    limited = space(limits=ModelLimits(max_batch=6))
    assert limited.batches == (1, 2, 4, 6)
    assert limited.layouts[0].max_batch == 6
    assert space(limits=ModelLimits(max_batch=1)).batches == (1,)


def test_a_gpu_gets_larger_batches_and_few_slots():
    """Threads mean nothing there."""
    gpu = space(64, device="cuda", compute_type="float16")
    assert {one.threads for one in gpu.layouts} == {1}
    assert [one.slots for one in gpu.layouts] == [1, 2, 4]
    assert gpu.batches[-1] == 256


def test_the_smallest_batch_within_five_percent_of_the_best_is_kept():
    """With the speeds that were measured: 8 items, a batch per core, not 32 and not two threads."""
    machine = SlowMachine(as_measured)
    found = tune(space(), machine.load, machine, budget_s=10)
    assert (found.slots, found.threads, found.max_batch) == (2, 1, 8)
    assert found.tokens_per_s == pytest.approx(2172, rel=0.01)
    assert machine.closed == len(machine.loads) == 2


def test_threads_win_only_where_they_are_clearly_faster():
    """Fewer slots make newcomers wait: that must be worth it."""

    def twice(layout: ModelLayout, batch: int) -> float:
        return TOKENS_PER_S[batch] * (1 if layout.threads == 1 else 2)

    def a_little(layout: ModelLayout, batch: int) -> float:
        return TOKENS_PER_S[batch] * (1 if layout.threads == 1 else 1.1)

    machine = SlowMachine(twice)
    assert tune(space(), machine.load, machine, budget_s=10).threads == 2
    machine = SlowMachine(a_little)
    assert tune(space(), machine.load, machine, budget_s=10).threads == 1


def test_a_disturbed_measurement_does_not_decide():
    """A neighbour slowed the first layout threefold; measured once more it holds its place."""
    machine = SlowMachine(lambda _, __: 0.0)

    def disturbed(_: ModelLayout, batch: int) -> float:
        return TOKENS_PER_S[batch] / (3 if len(machine.loads) == 1 else 1)

    machine.speed = disturbed
    assert tune(space(), machine.load, machine, budget_s=10).threads == 1
    assert [one.threads for one in machine.loads] == [1, 2, 1]


@pytest.mark.parametrize("factor", [0.001, 0.01, 0.1, 1, 10, 100])
@pytest.mark.parametrize("load_s", [0.001, 0.5, 30.0])
def test_a_slow_model_does_not_take_longer_than_its_budget(factor: float, load_s: float):
    """Whatever the speed: past the budget goes at most one layout's first, smallest step."""
    machine = SlowMachine(lambda layout, batch: factor * as_measured(layout, batch), load_s)
    began_s, budget_s = machine.now_s, 1.0
    found = tune(space(), machine.load, machine, budget_s=budget_s)
    took_s = machine.now_s - began_s - load_s
    smallest_s = 2 * 2 / (factor * TOKENS_PER_S[1])
    other_s = 2 * found.max_batch * 50 / (factor * TOKENS_PER_S[8]) if len(machine.loads) > 1 else 0
    assert took_s <= budget_s + max(smallest_s, other_s)
    assert found.slots == 2
    assert found.max_batch >= 8 or factor >= 1


def test_without_time_the_likely_best_is_taken_untried():
    """A model that uses the budget up with its first token gets a usual batch, not one item."""
    machine = SlowMachine(lambda _, __: 0.01)
    found = tune(space(), machine.load, machine, budget_s=1.0)
    assert (found.slots, found.max_batch, found.tokens_per_s) == (2, 8, None)
    assert set(machine.runs) == {(1, 1)}
    machine = SlowMachine(as_measured)
    assert tune(space(), machine.load, machine, budget_s=0).max_batch == 8
    assert not machine.loads


def test_too_little_memory_ends_the_search_for_larger_batches():
    """What fitted is kept; when nothing fits, that is said."""
    machine = SlowMachine(lambda _, batch: 1000.0 * batch, most_items=4)
    assert tune(space(), machine.load, machine, budget_s=10).max_batch == 4
    machine = SlowMachine(as_measured, most_items=0)
    with pytest.raises(EngineMemoryError):
        tune(space(), machine.load, machine, budget_s=10)
    assert machine.closed == 1


def test_an_encoder_is_measured_on_texts():
    """Its trial reads; one token of text would say nothing."""
    machine = SlowMachine(as_measured)
    tune(space(kind=ModelKind.EMBEDDING), machine.load, machine, budget_s=10)
    assert min(tokens for _, tokens in machine.runs) >= 16


def resident(max_batch: int) -> Resident:
    layout = ModelLayout(compute_type="int8", slots=2, threads=1, max_batch=max_batch)
    engine = EchoEngine(tokens_per_s=0)
    return Resident("tiny", "1", ModelKind.TEXT, engine, layout, memory_bytes=0)


def test_what_did_not_fit_is_halved_once():
    """Two slots that fail together say the same thing; below one item there is nothing."""
    model = resident(max_batch=32)
    model.ran_out_of_memory(items=6)
    model.ran_out_of_memory(items=6)
    assert model.layout.max_batch == 3
    model.ran_out_of_memory(items=1)
    assert model.layout.max_batch == 1


def test_after_many_good_batches_larger_ones_are_tried_again():
    """Step by step, up to what was tuned; a failure in between starts the count anew."""
    model = resident(max_batch=6)
    model.ran_out_of_memory(items=6)
    for _ in range(REGROW_AFTER_BATCHES - 1):
        model.ran_well()
    model.ran_out_of_memory(items=3)
    sizes = []
    for _ in range(4):
        for _ in range(REGROW_AFTER_BATCHES):
            model.ran_well()
        sizes.append(model.layout.max_batch)
    assert sizes == [2, 4, 6, 6]
    assert model.layout == model.tuned


def test_cuda_that_is_not_there_is_said_and_auto_does_without(monkeypatch):
    """Numbers are chosen by what the device supports."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    with pytest.raises(PermanentError, match="PENSTOCK_DEVICE") as caught:
        ctranslate2_devices.choose_target("cuda")
    assert caught.value.code == "no_cuda_device"
    assert ctranslate2_devices.choose_target("auto").device == "cpu"
    assert ctranslate2_devices.choose_target("cpu").compute_type == "int8"


@pytest.mark.parametrize(
    ("supported", "chosen"),
    [
        ({"int8_float16", "float16", "float32"}, "int8_float16"),
        ({"float16", "float32", "bfloat16"}, "float16"),
        ({"float32"}, "float32"),
    ],
)
def test_a_gpu_computes_in_the_smallest_numbers_that_it_supports(monkeypatch, supported, chosen):
    """No GPU is needed to see the choice; `cpu` stays on the processors beside one."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    assert ctranslate2_devices.choose_target("cpu").device == "cpu"
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda _: supported)
    target = ctranslate2_devices.choose_target("auto")
    assert (target.device, target.compute_type) == ("cuda", chosen)
