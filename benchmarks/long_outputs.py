"""What to do about answers that outlast the others of their batch (ADR 6).

A running batch admits nobody, so one long answer keeps a slot busy at batch size one while others
wait. The policies run on the real engine under a small scheduler (`harness/slots.py`) with the
same seeded jobs in closed loops; nothing else runs: no bus, no sealing, no frames.

Policies alternate in a random order within a round, and ratios are taken within a round. Processor
time per token is given beside the rate, since a machine that others use disturbs it less.
"""

from __future__ import annotations

import json
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import random_llama
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.plain_engine import loaded
from benchmarks.harness.report import Grid, Options, Report
from benchmarks.harness.slots import Policy, SlotScheduler
from benchmarks.harness.steady import Outcome
from benchmarks.harness.workload import BLOCK, Work, mixed

STREAMS: Final = (8, 32, 128)
BASE: Final = Policy("each batch to its end, prompts alike")
POLICIES: Final = (
    BASE,
    Policy("each batch to its end, anybody together", prompt_spread=None),
    Policy("size classes: limits within a factor of 2", limit_factor=2),
    Policy("cut at 1, worth 0.25", cut_at=1, worth=0.25),
    Policy("cut at 2, worth 0.5", cut_at=2, worth=0.5),
    Policy("cut at 4, worth 0.5", cut_at=4, worth=0.5),
    Policy("context budget 800", budget_tokens=800),
    Policy("context budget 800, cut at 1, worth 0.25", budget_tokens=800, cut_at=1, worth=0.25),
    Policy("context budget 800, cut at 2, worth 0.5", budget_tokens=800, cut_at=2, worth=0.5),
    Policy("3 slots, batches of 4", slots=3, batch=4),
    Policy("4 slots, batches of 4", slots=4, batch=4),
    Policy("one slot for short answers first", reserved=True),
)
_SEED: Final = 17


@dataclass(frozen=True, slots=True)
class Plan:
    """Jobs by number of streams, in whole blocks of the workload, and how often."""

    jobs: dict[int, int]
    rounds: int


FULL: Final = Plan(jobs={8: 2 * BLOCK, 32: 4 * BLOCK, 128: 8 * BLOCK}, rounds=3)
QUICK: Final = Plan(jobs={8: BLOCK, 32: 2 * BLOCK}, rounds=1)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one policy."""

    outcome: Outcome
    cuts: int


Trials = dict[tuple[int, str], list[Trial]]


def run(options: Options) -> Report:
    """Every policy at every number of streams, in rounds."""
    plan = QUICK if options.quick else FULL
    directory = random_llama.directory()
    works = mixed(directory, max(plan.jobs.values()))
    rng = random.Random(_SEED)
    found: defaultdict[tuple[int, str], list[Trial]] = defaultdict(list)
    for _ in range(options.rounds or plan.rounds):
        for streams, jobs in plan.jobs.items():
            for policy in rng.sample(POLICIES, len(POLICIES)):
                found[streams, policy.name].append(_try(directory, works[:jobs], policy, streams))
    return Report(
        name="long_outputs",
        grids=[_grid(found, streams) for streams in plan.jobs],
        figures={
            f"{streams} streams, {name}": {
                "ratio": _ratio(found, streams, name),
                "tokens_per_s": _median(trials, lambda one: one.outcome.tokens_per_s),
                "cpu_us_per_token": _median(trials, lambda one: one.outcome.cpu_us_per_token),
            }
            for (streams, name), trials in found.items()
        },
    )


def _try(directory: Path, works: Sequence[Work], policy: Policy, streams: int) -> Trial:
    names: list[str] = json.loads((random_llama.TOKENIZER_OF / "vocabulary.json").read_text())
    with loaded(directory, policy.slots, 1) as generator:
        scheduler = SlotScheduler(generator, names, policy, works)
        outcome = scheduler.run(streams)
        return Trial(outcome, scheduler.loop.cuts)


def _median(trials: Sequence[Trial], figure: Callable[[Trial], float]) -> float:
    return statistics.median(map(figure, trials))


def _ratio(found: Trials, streams: int, name: str) -> float:
    """The rate against the base policy's of the same round."""
    return statistics.median(
        trial.outcome.tokens_per_s / base.outcome.tokens_per_s
        for trial, base in zip(found[streams, name], found[streams, BASE.name], strict=True)
    )


def _grid(found: Trials, streams: int) -> Grid:
    columns = (
        "policy",
        "tokens/s",
        "ratio",
        "CPU µs/token",
        "first token, mean s",
        "p95 s",
        "whole answer, p95 s",
        "cuts",
    )
    rows = tuple(
        (policy.name, *_cells(found[streams, policy.name], _ratio(found, streams, policy.name)))
        for policy in POLICIES
    )
    return Grid(f"{streams} streams", columns, rows)


def _cells(trials: Sequence[Trial], ratio: float) -> tuple[str, ...]:
    return (
        f"{_median(trials, lambda one: one.outcome.tokens_per_s):,.0f}",
        f"{ratio:.2f}",
        f"{_median(trials, lambda one: one.outcome.cpu_us_per_token):,.0f}",
        f"{_median(trials, lambda one: statistics.mean(one.outcome.first_s)):.2f}",
        f"{_median(trials, lambda one: percentile(one.outcome.first_s, 0.95)):.2f}",
        f"{_median(trials, lambda one: percentile(one.outcome.total_s, 0.95)):.2f}",
        f"{_median(trials, lambda one: one.cuts):.0f}",
    )
