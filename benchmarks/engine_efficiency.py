"""Tokens per second through the worker, against what CTranslate2 can do with the same jobs.

Prompts and output limits are mixed, both from 16 to 256 tokens and log-uniform, from one seeded
list. A random model never ends, so limits decide and everybody makes the same tokens.

- *static*: plain CTranslate2 that knows all jobs ahead, sorts them and cuts them into batches, in
  the best of its arrangements (threads, batch size, order, context budget; each item its own limit
  through the callback, or one limit per batch without the callback and its cost);
- *defaults*: `Generator(path)` and one `generate_batch` of everything;
- *one at a time*: a lock around `generate_batch` with one prompt, as a web framework's handler has
  it, at the better number of threads; and the same without the lock, one on each core;
- *worker*: the worker process and the bus, fed by 1, 8, 32 and 128 closed-loop streams. The feeder
  shares the cores; what it takes is stated.

Every rate is that of the steady part (`harness/steady.py`): static batching until its first slot
runs out, closed loops between the first tenth of the jobs and the last one asked for. Contenders
alternate within a round, ratios are taken within a round, and a figure is the rounds' median. What
would take too long gets the list's first blocks, which are as mixed as the whole.

Beside the ratio of the rates stands that of the processor time per token, the bus's included: it
says less (a slot that idles costs nothing), but other users of the machine hardly change it.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import random_llama, worker_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.plain_engine import loaded
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.slots import Policy, SlotScheduler
from benchmarks.harness.static_batches import Arrangement, measure, measure_defaults
from benchmarks.harness.static_trial import SAMPLE, finalists
from benchmarks.harness.steady import Outcome
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.worker_runs import WorkerRun, closed_loop, warm_up
from benchmarks.harness.workload import BLOCK, Work, mixed

STATIC_AIM: Final = 0.9
ONE_AT_A_TIME_AIM: Final = 2.0
AIMED_STREAMS: Final = (32, 128)
ONE_AT_A_TIME: Final = "one at a time"
ONE_EACH: Final = "one on each core"
DEFAULTS: Final = "defaults, all at once"
_FEW_STREAMS: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How many streams and jobs, and how often; jobs in whole blocks of the workload."""

    streams: tuple[int, ...]
    jobs: int
    """More than streams: else all are asked for at once, and nothing is steady."""
    few_jobs: int
    """For what is slow: one stream, one at a time, the defaults."""
    rounds: int


FULL: Final = Plan(streams=(1, 8, 32, 128), jobs=8 * BLOCK, few_jobs=2 * BLOCK, rounds=3)
QUICK: Final = Plan(streams=(1, 8, 32), jobs=3 * BLOCK, few_jobs=BLOCK, rounds=1)


@dataclass(slots=True)
class Found:
    """What the rounds have found: an outcome per round."""

    static: dict[Arrangement, list[Outcome]] = field(default_factory=dict)
    alone: defaultdict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    worker: defaultdict[int, list[WorkerRun]] = field(default_factory=lambda: defaultdict(list))

    @property
    def best(self) -> Arrangement:
        """The arrangement in which static batching is fastest."""
        return max(self.static, key=lambda one: _rate(self.static[one]))

    def ratio(self, streams: int, yardstick: Sequence[Outcome]) -> float:
        """The worker's rate as a share of another's, the median of the rounds' ratios."""
        return statistics.median(
            run.outcome.tokens_per_s / other.tokens_per_s
            for run, other in zip(self.worker[streams], yardstick, strict=True)
        )

    def cpu_ratio(self, streams: int) -> float:
        """The best static batching's processor time per token, as a share of worker and bus."""
        return statistics.median(
            static.cpu_us_per_token / (run.outcome.cpu_us_per_token + run.bus_us_per_token)
            for run, static in zip(self.worker[streams], self.static[self.best], strict=True)
        )


def run(options: Options) -> Report:
    """Everybody in turn, in rounds."""
    plan = QUICK if options.quick else FULL
    directory = random_llama.directory()
    works = mixed(directory, plan.jobs)
    found = Found()
    single_threads = _threads_of_one(directory, works)
    for arrangement in finalists(directory, works[: plan.few_jobs]):
        found.static[arrangement] = []
    with worker_bench.running([directory]) as bench:
        warm_up(bench, random_llama.NAME, works[:BLOCK])
        for _ in range(options.rounds or plan.rounds):
            _round(found, bench, directory, works, plan, single_threads)
    return Report(
        name="engine_efficiency",
        grids=[_speeds(found), _first_tokens(found)],
        figures=_figures(found),
        aims=_aims(found),
    )


def _round(
    found: Found,
    bench: WorkerBench,
    directory: Path,
    works: Sequence[Work],
    plan: Plan,
    single_threads: int,
) -> None:
    few = works[: plan.few_jobs]
    for streams in plan.streams:
        given = few if streams < _FEW_STREAMS else works
        found.worker[streams].append(closed_loop(bench, random_llama.NAME, given, streams))
        if streams == AIMED_STREAMS[0]:  # the yardsticks next to what is held against them
            for arrangement, outcomes in found.static.items():
                outcomes.append(measure(directory, works, arrangement))
    for name, slots, threads in ((ONE_AT_A_TIME, 1, single_threads), (ONE_EACH, 2, 1)):
        found.alone[name].append(_one_at_a_time(directory, few, slots, threads))
    if not found.alone[DEFAULTS]:  # once: it takes as long as all others together
        found.alone[DEFAULTS].append(measure_defaults(directory, works[:BLOCK]))


def _threads_of_one(directory: Path, works: Sequence[Work]) -> int:
    few = works[:SAMPLE]
    return max((1, 2), key=lambda threads: _one_at_a_time(directory, few, 1, threads).tokens_per_s)


def _one_at_a_time(directory: Path, works: Sequence[Work], slots: int, threads: int) -> Outcome:
    policy = Policy(ONE_AT_A_TIME, slots=slots, batch=1)
    names: list[str] = json.loads((random_llama.TOKENIZER_OF / "vocabulary.json").read_text())
    streams = min(AIMED_STREAMS[0], len(works) // 2)
    with loaded(directory, slots, threads) as generator:
        return SlotScheduler(generator, names, policy, works).run(streams)


def _rate(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.tokens_per_s for outcome in outcomes)


def _cpu_us(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.cpu_us_per_token for outcome in outcomes)


def _outcomes(found: Found, streams: int) -> list[Outcome]:
    return [run.outcome for run in found.worker[streams]]


def _speeds(found: Found) -> Grid:
    static, single = found.static[found.best], found.alone[ONE_AT_A_TIME]
    others = {
        **{f"static, {arrangement}": outcomes for arrangement, outcomes in found.static.items()},
        **found.alone,
    }
    rows = [
        (name, f"{_rate(outcomes):,.0f}", "", "", "", f"{_cpu_us(outcomes):,.0f}", "", "")
        for name, outcomes in others.items()
    ]
    rows += [
        (
            f"worker, {streams} streams",
            f"{_rate(_outcomes(found, streams)):,.0f}",
            f"{found.ratio(streams, static):.2f}",
            f"{found.cpu_ratio(streams):.2f}",
            f"{found.ratio(streams, single):.2f}",
            f"{_cpu_us(_outcomes(found, streams)):,.0f}",
            f"{statistics.median(run.bus_us_per_token for run in runs):.0f}",
            f"{statistics.median(run.feeder_share for run in runs):.1%}",
        )
        for streams, runs in found.worker.items()
    ]
    columns = (
        "",
        "tokens/s",
        "of static",
        "by CPU time",
        "of one at a time",
        "CPU µs/token",
        "bus µs/token",
        "feeder, of a core",
    )
    return Grid("Mixed prompts and output limits, 16 to 256 tokens", columns, tuple(rows))


def _first_tokens(found: Found) -> Grid:
    outcomes = {
        **{f"worker, {streams} streams": _outcomes(found, streams) for streams in found.worker},
        f"{ONE_AT_A_TIME}, {AIMED_STREAMS[0]} streams": found.alone[ONE_AT_A_TIME],
    }
    rows = [
        (name, *(f"{percentile(waits, share) * 1000:,.0f}" for share in (0.5, 0.95)))
        for name, some in outcomes.items()
        for waits in [[wait for outcome in some for wait in outcome.first_s]]
    ]
    return Grid("Time to first token", ("", "p50 ms", "p95 ms"), tuple(rows))


def _figures(found: Found) -> dict[str, Any]:
    static = found.static[found.best]
    return {
        "best_static": str(found.best),
        "static_tokens_per_s": {str(one): _rate(of) for one, of in found.static.items()},
        "alone_tokens_per_s": {name: _rate(of) for name, of in found.alone.items()},
        "worker": {
            str(streams): {
                "tokens_per_s": _rate(_outcomes(found, streams)),
                "of_static": found.ratio(streams, static),
                "of_static_by_cpu": found.cpu_ratio(streams),
                "of_one_at_a_time": found.ratio(streams, found.alone[ONE_AT_A_TIME]),
                "cpu_us_per_token": _cpu_us(_outcomes(found, streams)),
                "feeder_share": statistics.median(run.feeder_share for run in runs),
            }
            for streams, runs in found.worker.items()
        },
    }


def _aims(found: Found) -> list[Aim]:
    aims = []
    for streams in sorted(set(AIMED_STREAMS) & set(found.worker)):
        share = found.ratio(streams, found.static[found.best])
        text = f"at least {STATIC_AIM:g} of the best static batching at {streams} streams"
        aims.append(Aim(text, f"{share:.2f}", share >= STATIC_AIM))
    times = found.ratio(AIMED_STREAMS[0], found.alone[ONE_AT_A_TIME])
    text = f"at least {ONE_AT_A_TIME_AIM:g} times one at a time at {AIMED_STREAMS[0]} streams"
    aims.append(Aim(text, f"{times:.2f} times", times >= ONE_AT_A_TIME_AIM))
    return aims
