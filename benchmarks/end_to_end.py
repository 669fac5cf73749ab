"""Requests per second and latency of the whole durable path, against LiteLLM's proxy.

Penstock does for each request what it always does: API key, rate limit, encryption, `routed` and
the job on disk with an fsync each, the worker, the terminal fact on disk, billing and audit. Its
`echo` model answers at once. LiteLLM answers from `mock_response`, with neither database nor
logging. Both get the same text from the same client on the same cores, one after the other, in
rounds; a figure is the median of the rounds.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.harness import litellm_proxy, stack
from benchmarks.harness.arithmetic import median_of, per_request_ms
from benchmarks.harness.load import Call, measure
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.report import Aim, Grid, Options, Report

TEXT: Final = "How do I return a jacket that does not fit?"
WARM_UP_S: Final = 3.0
AIM_CONCURRENCY: Final = 16
AIM_OVER_ONE_WORKER: Final = 8.0
AIM_OVER_BEST: Final = 5.0
_CPU: Final = "cpu_ms:"


@dataclass(frozen=True, slots=True)
class Target:
    """A system that is ready to be measured; `settle` waits for what it still has to do."""

    call: Call
    pids: dict[str, int]
    settle: Callable[[], float]


@contextlib.contextmanager
def penstock(topology: str) -> Iterator[Target]:
    """A stack with the `echo` model and one worker."""
    with stack.running({**stack.ECHO, "PENSTOCK_NATS_TOPOLOGY": topology}) as running:
        yield target_of(running)


def target_of(running: stack.Stack) -> Target:
    """A stack that has the `echo` model, with a key of its own."""
    url, body = running.http_url + "/v1/responses", {"model": "echo", "input": TEXT}
    call = Call.post(url, running.bench_key(), body, '"completed"')
    return Target(call, running.pids, running.settle)


@contextlib.contextmanager
def litellm(workers: int) -> Iterator[Target]:
    """LiteLLM's proxy with that many worker processes."""
    with litellm_proxy.running(workers, TEXT) as proxy:
        body = {
            "model": litellm_proxy.MODEL,
            "messages": [{"role": "user", "content": TEXT}],
        }
        url = proxy.url + "/v1/chat/completions"
        call = Call.post(url, litellm_proxy.MASTER_KEY, body, '"stop"')
        yield Target(call, {"litellm": proxy.pid}, lambda: 0.0)


SYSTEMS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[Target]]]] = {
    "penstock": lambda: penstock("single"),
    "penstock, 3 NATS servers": lambda: penstock("cluster3"),
    "litellm, 1 worker": lambda: litellm(1),
    "litellm, 2 workers": lambda: litellm(2),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    concurrencies: tuple[int, ...]
    duration_s: float
    rounds: int


FULL: Final = Plan((1, 16, 64), 10.0, 3)
QUICK: Final = Plan((1, 16), 3.0, 1)


def run(options: Options) -> Report:
    """Measure every system and compare."""
    plan = QUICK if options.quick else FULL
    repeats = options.rounds or plan.rounds
    versions = {"litellm": litellm_proxy.install()}
    rounds: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    for _ in range(repeats):
        for name, start in SYSTEMS.items():
            with start() as target:
                measure(target.call, AIM_CONCURRENCY, WARM_UP_S)
                target.settle()
                for concurrency in plan.concurrencies:
                    rounds[name, concurrency].append(
                        measure_once(target, concurrency, plan.duration_s)
                    )
    found = {key: median_of(rows) for key, rows in rounds.items()}
    figures = [
        {"system": name, "concurrency": concurrency, **row}
        for (name, concurrency), row in found.items()
    ]
    return Report(
        name="end_to_end",
        grids=[_throughput(found), _processors(found)],
        figures={"rows": figures, "rounds": repeats, "duration_s": plan.duration_s},
        aims=compare({name: row for (name, c), row in found.items() if c == AIM_CONCURRENCY}),
        versions=versions,
    )


def measure_once(target: Target, concurrency: int, duration_s: float) -> dict[str, float]:
    """One stretch of load; the processor time of what follows it is included."""
    before_s = cpu_seconds(target.pids)
    measured = measure(target.call, concurrency, duration_s)
    settle_s = target.settle()
    spent_ms = per_request_ms(before_s, cpu_seconds(target.pids), measured.requests)
    return {
        **measured.row(),
        "settle_s": settle_s,
        "client_cpu_ms": measured.client_cpu_s * 1000 / measured.requests,
        **{_CPU + name: value for name, value in spent_ms.items()},
    }


def compare(rows: dict[str, dict[str, float]]) -> list[Aim]:
    """The aims of the default topology, from the rows at one concurrency."""
    ours = rows["penstock"]
    peers = {name: row for name, row in rows.items() if name.startswith("litellm")}
    one = peers["litellm, 1 worker"]["requests_per_s"]
    best = max(row["requests_per_s"] for row in peers.values())
    ratio_one, ratio_best = ours["requests_per_s"] / one, ours["requests_per_s"] / best
    aims = [
        Aim(
            f"at least {AIM_OVER_ONE_WORKER:g} times one LiteLLM worker at concurrency 16",
            f"{ratio_one:.1f} times",
            ratio_one >= AIM_OVER_ONE_WORKER,
        ),
        Aim(
            f"at least {AIM_OVER_BEST:g} times LiteLLM's best worker count",
            f"{ratio_best:.1f} times",
            ratio_best >= AIM_OVER_BEST,
        ),
    ]
    for quantile in ("p50_ms", "p99_ms"):
        least = min(row[quantile] for row in peers.values())
        text = f"lower {quantile[:3]} than LiteLLM's best"
        measured = f"{ours[quantile]:.1f} ms against {least:.1f} ms"
        aims.append(Aim(text, measured, ours[quantile] < least))
    return aims


def _throughput(found: dict[tuple[str, int], dict[str, float]]) -> Grid:
    return Grid(
        "Whole path, closed loop",
        (
            "system",
            "in flight",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU ms/request",
            "settled after s",
        ),
        tuple(
            (
                name,
                str(concurrency),
                f"{row['requests_per_s']:,.0f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{sum(v for k, v in row.items() if k.startswith(_CPU)):.2f}",
                f"{row['settle_s']:.1f}",
            )
            for (name, concurrency), row in found.items()
        ),
    )


def _processors(found: dict[tuple[str, int], dict[str, float]]) -> Grid:
    rows = [
        (name, key.removeprefix(_CPU), f"{value:.3f}")
        for (name, concurrency), row in found.items()
        for key, value in [*row.items(), (_CPU + "load client", row["client_cpu_ms"])]
        if concurrency == AIM_CONCURRENCY and key.startswith(_CPU)
    ]
    title = f"Processor time at {AIM_CONCURRENCY} in flight, settling included"
    return Grid(title, ("system", "process", "CPU ms/request"), tuple(rows))
