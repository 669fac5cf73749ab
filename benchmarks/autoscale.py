"""A burst that finds no worker: what scaling by queue depth saves, and what it costs.

The whole stack, and clients that all ask at once and then no more. Contenders are a fixed number of
workers, which stand ready, and `--workers auto:2`, which begins with none. Each has its own data
directory, in which one start before the first round has tuned the model: a machine does that once.

- *First token*: from the burst to the first delta of each answer; of the very first of all answers
  (*first of all*), and over all.
- *Drained*: from the burst to the end of the last answer.
- *Worker-seconds*: worker processes times how long they ran, from the burst until it was drained;
  for `auto` also until the last one had gone. Fixed workers never go.

Cooldown and scale-down window are `REST_S` here, and 300 s by default: so long must the queue be
empty before the last worker goes, and so many worker-seconds more does each burst cost.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Final

from examples.demo.messages import MESSAGES

from benchmarks.harness import stack
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.report import Grid, Options, Report
from benchmarks.harness.sockets import Streamed, stream
from benchmarks.harness.worker_count import WorkerCount, worker_seconds

MODEL: Final = Path(__file__).parents[1] / "models" / "penstock-small"
REST_S: Final = 10
MAX_TOKENS: Final = 64
_MOST: Final = 2
_GONE_TIMEOUT_S: Final = REST_S + 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    jobs: int
    rounds: int


FULL: Final = Plan(jobs=500, rounds=3)
QUICK: Final = Plan(jobs=60, rounds=1)


@dataclass(slots=True)
class Contender:
    """A way to choose the number of workers, and what its rounds have seen."""

    workers: str
    tuned_by: str
    """A fixed number whose workers have the same share of the processors."""
    rows: list[dict[str, float]] = field(default_factory=list)
    api_key: str = ""

    @property
    def is_elastic(self) -> bool:
        """Whether its workers go again."""
        return self.workers.startswith("auto")

    def median(self, name: str) -> float | None:
        """Over the rounds; None where it has no such figure."""
        found = [row[name] for row in self.rows if name in row]
        return statistics.median(found) if found else None


def run(options: Options) -> Report:
    """Every contender in turn, in rounds; a figure is the rounds' median."""
    plan = QUICK if options.quick else FULL
    contenders = (
        Contender("1", tuned_by="1"),
        Contender("2", tuned_by="2"),
        Contender(f"auto:{_MOST}", tuned_by=str(_MOST)),
    )
    with tempfile.TemporaryDirectory(prefix="penstock-bench-autoscale-") as scratch:
        place = Path(scratch)
        (place / "models").mkdir()
        (place / "models" / MODEL.name).symlink_to(MODEL)
        for contender in contenders:
            with _serving(place, contender, contender.tuned_by) as running:
                contender.api_key = running.bench_key()
                _burst(running, contender.api_key, 1)
        for _ in range(options.rounds or plan.rounds):
            for contender in contenders:
                with _serving(place, contender, contender.workers) as running:
                    contender.rows.append(_measure(running, contender, plan.jobs))
    return Report(
        name="autoscale",
        grids=[_grid(contenders, plan.jobs)],
        figures={
            "jobs": plan.jobs,
            "rest_s": REST_S,
            "rounds": {contender.workers: contender.rows for contender in contenders},
        },
    )


@contextmanager
def _serving(place: Path, contender: Contender, workers: str) -> Iterator[stack.Stack]:
    env = {
        "PENSTOCK_MODELS_DIR": str(place / "models"),
        "PENSTOCK_SCALE_COOLDOWN_S": str(REST_S),
        "PENSTOCK_SCALE_DOWN_WINDOW_S": str(REST_S),
    }
    data_dir = place / contender.workers.replace(":", "-")
    with stack.running(env, workers=workers, data_dir=data_dir) as running:
        yield running


def _burst(running: stack.Stack, key: str, jobs: int) -> Streamed:
    url = running.http_url.replace("http", "ws", 1) + "/v1/responses"
    common = {"model": MODEL.name, "max_output_tokens": MAX_TOKENS, "temperature": 0}
    texts = islice(cycle([message.text for message in MESSAGES]), jobs)
    return stream(url, key, jobs, [{**common, "input": text} for text in texts])


def _measure(running: stack.Stack, contender: Contender, jobs: int) -> dict[str, float]:
    with WorkerCount(running.data_dir / "run.json") as count:
        seen = _burst(running, contender.api_key, jobs)
        drained_s = perf_counter()
        began_s = drained_s - seen.duration_s
        if contender.is_elastic:
            count.wait_until_none(_GONE_TIMEOUT_S)
    row = {
        "first_of_all_s": min(seen.first_token_s),
        "first_p50_s": percentile(seen.first_token_s, 0.5),
        "first_p95_s": percentile(seen.first_token_s, 0.95),
        "drained_s": seen.duration_s,
        "tokens_per_s": seen.tokens_per_s,
        "most_workers": float(max(workers for _, workers in count.samples)),
        "worker_s": worker_seconds(count.samples, began_s, drained_s),
    }
    if contender.is_elastic:
        row["worker_s_until_gone"] = worker_seconds(count.samples, began_s)
    return row


def _grid(contenders: tuple[Contender, ...], jobs: int) -> Grid:
    columns = {
        "first s": "first_of_all_s",
        "p50 s": "first_p50_s",
        "p95 s": "first_p95_s",
        "drained s": "drained_s",
        "most": "most_workers",
        "worker-s": "worker_s",
        "until gone": "worker_s_until_gone",
    }
    rows = tuple(
        (contender.workers, *(_cell(contender.median(name)) for name in columns.values()))
        for contender in contenders
    )
    title = (
        f"A burst of {jobs} answers of {MODEL.name}, {MAX_TOKENS} tokens at most: first token, "
        f"time to drain, worker-seconds until then and until all are gone ({REST_S} s of rest)"
    )
    return Grid(title, ("workers", *columns), rows)


def _cell(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.0f}" if value >= 100 or value.is_integer() else f"{value:.2f}"
