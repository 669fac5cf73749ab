"""Layouts on disk: kept, shared between processes, and never trusted blindly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelLimits
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest
from penstock_worker.adapters.ctranslate2_devices import choose_target
from penstock_worker.adapters.layout_store import LayoutKey, LayoutStore
from penstock_worker.adapters.machine import read_machine
from penstock_worker.adapters.model_shelf import DiskShelf
from penstock_worker.adapters.tuner import Trial, Tuner
from penstock_worker.domain.tuning import candidates

MODELS = Path(__file__).parents[3] / "models"
KEY = LayoutKey(
    model="tiny",
    version="1.0",
    kind=ModelKind.TEXT,
    weights_sha256="0" * 64,
    limits=ModelLimits(),
    machine="abc",
    device="cpu",
    compute_type="int8",
    engine_version="4.8.5",
)
LAYOUT = ModelLayout(compute_type="int8", slots=2, threads=1, max_batch=4, tokens_per_s=123.4)
SPACE = candidates(2, "cpu", ModelKind.TEXT, ModelLimits(), "int8")

HOLDER = """
import sys, time
from pathlib import Path
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest
from penstock_worker.adapters.ctranslate2_devices import choose_target
from penstock_worker.adapters.layout_store import LayoutStore
with LayoutStore(Path(sys.argv[1])).alone():
    print("held", flush=True)
    time.sleep(600)
"""


class CountedTrials:
    """Loads that cost nothing and count."""

    def __init__(self) -> None:
        self.loads = 0

    def load(self, _layout: ModelLayout) -> Trial:
        self.loads += 1
        return self

    def run(self, batch: int, tokens: int) -> None:
        pass

    def close(self) -> None:
        pass


def tuner(store: LayoutStore, budget_s: float = 0.05) -> Tuner:
    return Tuner(store, SystemClock(), budget_s=budget_s)


def test_a_layout_survives_the_process_that_found_it(tmp_path: Path):
    """Another store on the same directory finds it; nothing but the file and the lock is left."""
    place = tmp_path / "not" / "yet"
    found = tuner(LayoutStore(place)).layout(KEY, SPACE, CountedTrials().load)
    assert LayoutStore(place).find(KEY) == found
    assert {path.name for path in place.iterdir()} == {KEY.file_name, "tuning.lock"}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.1"},
        {"weights_sha256": "1" * 64},
        {"machine": "other"},
        {"engine_version": "5.0"},
        {"compute_type": "float32"},
        {"limits": ModelLimits(max_batch=2)},
    ],
)
def test_what_a_layout_depends_on_makes_it_another(tmp_path: Path, change):
    """New weights, another machine, another engine or another limit: tried again."""
    store = LayoutStore(tmp_path)
    store.keep(KEY, LAYOUT)
    assert store.find(KEY.model_copy(update=change)) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"key": {}, "layout": {}}'])
def test_a_file_that_is_broken_is_tried_anew_and_written_anew(tmp_path: Path, content: bytes):
    """A crash of the disk costs a second, not the start."""
    (tmp_path / KEY.file_name).write_bytes(content)
    trials = CountedTrials()
    found = tuner(LayoutStore(tmp_path)).layout(KEY, SPACE, trials.load)
    assert trials.loads > 0
    assert LayoutStore(tmp_path).find(KEY) == found


def test_a_file_of_something_else_is_not_believed(tmp_path: Path):
    """Copied from another machine under this one's name: its own key says so."""
    foreign = KEY.model_copy(update={"machine": "other"})
    store = LayoutStore(tmp_path)
    store.keep(foreign, LAYOUT)
    (tmp_path / foreign.file_name).rename(tmp_path / KEY.file_name)
    assert LayoutStore(tmp_path).find(KEY) is None


def test_without_a_directory_it_is_kept_in_memory(tmp_path: Path):
    """One tuning per process."""
    store, trials = LayoutStore(None), CountedTrials()
    first = tuner(store).layout(KEY, SPACE, trials.load)
    loads = trials.loads
    assert tuner(store).layout(KEY, SPACE, trials.load) == first
    assert trials.loads == loads


def test_a_directory_that_cannot_be_used_does_not_stop_a_worker(tmp_path: Path):
    """Its name is a file's: the model is tuned, and remembered by this process only."""
    (tmp_path / "file").write_text("")
    store, trials = LayoutStore(tmp_path / "file"), CountedTrials()
    found = tuner(store).layout(KEY, SPACE, trials.load)
    assert store.find(KEY) == found


def test_no_budget_means_no_trial(tmp_path: Path):
    """The likely best, and nothing is written down as if it had been found."""
    trials = CountedTrials()
    found = tuner(LayoutStore(tmp_path), budget_s=0).layout(KEY, SPACE, trials.load)
    assert found == SPACE.layouts[0]
    assert trials.loads == 0
    assert list(tmp_path.iterdir()) == []


def test_of_several_workers_one_tunes_and_the_others_use_its_result(tmp_path: Path):
    """Each with a store of its own, as in processes of their own; all start together."""
    workers = 4
    start, trials = threading.Barrier(workers), [CountedTrials() for _ in range(workers)]
    found: list[ModelLayout] = []

    def work(mine: CountedTrials) -> None:
        own = tuner(LayoutStore(tmp_path))
        start.wait()
        found.append(own.layout(KEY, SPACE, mine.load))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(mine.loads > 0 for mine in trials) == 1
    assert len(found) == workers
    assert len(set(found)) == 1


def test_the_lock_is_free_when_its_holder_has_died(tmp_path: Path):
    """Killed with SIGKILL in the middle of tuning: whoever waits goes on, and tunes itself."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        trials, waited = CountedTrials(), threading.Event()

        def work() -> None:
            tuner(LayoutStore(tmp_path)).layout(KEY, SPACE, trials.load)
            waited.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert not waited.wait(0.3)  # can only pass too easily, never fail by slowness
        assert trials.loads == 0
        os.kill(holder.pid, signal.SIGKILL)
        thread.join(30)
        assert waited.is_set()
        assert trials.loads > 0


def test_a_real_model_is_tuned_once_for_all_workers_of_a_machine(tmp_path: Path):
    """The bundled model through its own engine; a second worker loads it as the first one found."""
    catalog = ModelCatalog([MODELS])
    limits = ModelLimits(max_batch=4)
    record = read_manifest(MODELS / "penstock-small").record().model_copy(update={"limits": limits})
    target, machine = choose_target("cpu"), read_machine()
    layouts = []
    for _ in range(2):
        store = LayoutStore(tmp_path)
        shelf = DiskShelf(catalog, store, tuner(store, 0.3), target, machine)
        expected_bytes = shelf.memory_bytes(record)
        resident = shelf.load(record)
        resident.engine.close()
        assert 0 < resident.memory_bytes <= expected_bytes
        layouts.append(resident.layout)
    assert layouts[0] == layouts[1]
    assert layouts[0].slots * layouts[0].threads <= machine.processors
    assert layouts[0].max_batch <= 4
    assert sum(path.suffix == ".json" for path in tmp_path.iterdir()) == 1
