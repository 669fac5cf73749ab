"""Replaying ways to route, and sampling where a process's time goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness.reference_policies import (
    WAYS,
    Outcomes,
    Reached,
    Routes,
    Scenery,
    compare,
)

from penstock_router.domain.features import Features, features_of
from penstock_router.domain.lexicon import Lexicon
from penstock_router.evaluate.outcomes import text_content

SIZE = 160
WEAK_US, STRONG_US = 1_000.0, 4_000.0


def features(text: str) -> Features:
    return features_of(text_content(text), Lexicon())


def outcomes(seed: int = 0) -> Outcomes:
    """The large model is always right; the small one on easy messages, and knows when it is not."""
    rng = np.random.default_rng(seed)
    easy = rng.random(SIZE) < 0.8
    right = np.column_stack((easy.astype(float), np.ones(SIZE)))
    texts = ["plain words" if each else "hard words, and more, and others" for each in easy]
    return Outcomes(
        features=tuple(map(features, texts)),
        right=right,
        cost_us=np.tile((WEAK_US, STRONG_US), (SIZE, 1)),
        confidence=np.where(easy, 0.999, 0.6),
        schema_ok=np.ones(SIZE, bool),
    )


def test_a_failed_check_has_cost_its_attempt() -> None:
    """Both attempts are paid where the small model's answer is replaced; the client gets one."""
    seen = outcomes().take(np.arange(3))
    first, escalated = np.array([True, False, False]), np.array([False, True, False])
    right, cost_us = Routes(first, escalated).result(seen)
    assert cost_us.tolist() == [STRONG_US, WEAK_US + STRONG_US, WEAK_US]
    assert right.tolist() == [1.0, 1.0, seen.right[2, 0]]


def test_plain_ways_cost_what_they_must() -> None:
    """Always small and always large are the two ends, whatever is known."""
    seen = outcomes()
    at = Scenery(seen, seen.right, seen)
    ends = {way.name: way.route(at, ()).result(seen) for way in WAYS if way.name.startswith("al")}
    assert ends["always small"][1].sum() == SIZE * WEAK_US
    assert ends["always large"][1].sum() == SIZE * STRONG_US
    assert ends["always large"][0].all()


def test_ways_that_can_tell_reach_the_aim() -> None:
    """Where text or confidence tells hard from easy, quality is kept at a part of the cost."""
    reached = compare(outcomes(), seed=1)
    for name in ("classifier, up front", "cascade by confidence", "plans"):
        found = reached[name]
        assert found.aim_met, (name, found)
        assert found.cost_interval[0] <= found.cost <= found.cost_interval[1]
    assert reached["plans"].cost <= reached["cascade by confidence"].cost + 0.01
    assert not reached["always small"].aim_met
    assert not reached["always large"].aim_met


def test_the_seed_decides() -> None:
    """The same seed gives the same halves and the same intervals."""
    ways = WAYS[:3]
    assert compare(outcomes(), 3, ways) == compare(outcomes(), 3, ways)


@pytest.mark.parametrize(("quality", "cost"), [(0.979, 0.5), (0.99, 0.61)])
def test_the_aim_is_both(quality: float, cost: float) -> None:
    """Cheap and bad is not enough, nor good and dear."""
    found = Reached(quality, (0, 1), cost, (0, 1), 0.0, 0.0, ())
    assert not found.aim_met


def test_samples_are_of_the_event_loop_and_of_what_it_runs(tmp_path: Path) -> None:
    """A function that burns time in the loop is in nearly all samples; what ran before in none."""
    (tmp_path / "penstock_work.py").write_text(
        "import time\n"
        "def burn(s):\n"
        "    until = time.process_time() + s\n"
        "    while time.process_time() < until: pass\n"
        "def before(): burn(0.1)\n"
        "async def main(): burn(0.3)\n"
    )
    (tmp_path / "busy.py").write_text(
        "import asyncio, penstock_work\npenstock_work.before()\nasyncio.run(penstock_work.main())\n"
    )
    out, root = tmp_path / "samples.json", Path(__file__).parents[3]
    command = [sys.executable, "-m", "benchmarks.harness.sampled", str(out), "busy"]
    subprocess.run(command, check=True, env={"PYTHONPATH": f"{root}:{tmp_path}"}, timeout=60)
    counted = json.loads(out.read_text())
    assert counted["busy"] > 10
    assert counted["the event loop"] == counted["busy"]
    assert not any(name.endswith("before") for name in counted)
    assert sum(n for name, n in counted.items() if name.endswith(": burn")) > 0.8 * counted["busy"]
