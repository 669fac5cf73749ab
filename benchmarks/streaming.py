"""Tokens per second to 32 WebSocket clients, and what the stack adds to the first token.

The yardstick is CTranslate2 alone, in the same run on the same threads: the same prompts, handed
over all at once, in the best of its settings (batches side by side, threads per batch, batch
size). The stack gets them from clients that ask for the next answer when the last one is complete,
so both do the same work and both pay for its beginning and its end. A random model never ends, so
answers are cut at `MAX_TOKENS`; a trained one ends by itself.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from examples.demo.messages import MESSAGES

from benchmarks.harness import plain_engine, random_llama, stack
from benchmarks.harness.arithmetic import median_of, per_request_ms, percentile
from benchmarks.harness.plain_engine import SETTINGS, Setting
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.sockets import stream
from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.tokenizer import ChatTokenizer

MODELS: Final = Path(__file__).parents[1] / "models"
TRAINED: Final = ("penstock-large", "penstock-small")
CLIENTS: Final = 32
MAX_TOKENS: Final = 128
SHARE_AIM: Final = 0.8
ADDED_AIM_MS: Final = 8.0
_TRIED_TOKENS: Final = 32
_FINALISTS: Final = 2
_FEW_TOKENS: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How much; `answers` is a multiple of the number of clients."""

    answers: int
    first_tokens: int
    rounds: int


FULL: Final = Plan(answers=128, first_tokens=40, rounds=3)
QUICK: Final = Plan(answers=32, first_tokens=12, rounds=1)


@dataclass(slots=True)
class Subject:
    """A model, and what the rounds have found about it."""

    directory: Path
    plain: dict[Setting, list[plain_engine.Speed]] = field(default_factory=dict)
    delivered: list[float] = field(default_factory=list)
    deltas_per_token: list[float] = field(default_factory=list)
    cpu_us: list[dict[str, float]] = field(default_factory=list)
    busy_first_ms: list[float] = field(default_factory=list)
    plain_first_ms: list[float] = field(default_factory=list)
    idle_first_ms: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The model's."""
        return self.directory.name

    @property
    def best(self) -> Setting:
        """The setting in which CTranslate2 alone is fastest."""
        return max(self.plain, key=lambda one: _median_speed(self.plain[one]))

    @property
    def plain_tokens_per_s(self) -> float:
        """CTranslate2 alone, at its best."""
        return _median_speed(self.plain[self.best])

    @property
    def tokens_per_s(self) -> float:
        """Through the stack."""
        return statistics.median(self.delivered)

    @property
    def share(self) -> float:
        """How much of the engine's own speed reaches the clients."""
        return self.tokens_per_s / self.plain_tokens_per_s

    @property
    def added_ms(self) -> list[float]:
        """Each prompt's first token through the idle stack, minus the engine's own."""
        return [
            through - alone
            for through, alone in zip(self.idle_first_ms, self.plain_first_ms, strict=True)
        ]

    def prompts(self, answers: int) -> list[list[str]]:
        """The tokens of so many prompts, as the worker makes them."""
        tokenizer = ChatTokenizer(self.directory)
        return [
            tokenizer.encode((ChatMessage(role="user", content=text),)) for text in _texts(answers)
        ]

    def bodies(self, answers: int, max_tokens: int) -> list[dict[str, Any]]:
        """The same as requests."""
        common = {"model": self.name, "max_output_tokens": max_tokens, "temperature": 0}
        return [{**common, "input": text} for text in _texts(answers)]


def run(options: Options) -> Report:
    """Both models, in rounds: the engine alone, then the stack."""
    plan = QUICK if options.quick else FULL
    repeats = options.rounds or plan.rounds
    subjects = [Subject(random_llama.directory()), Subject(_trained())]
    for subject in subjects:
        for setting in _finalists(subject):
            subject.plain[setting] = []
    for _ in range(repeats):
        for subject in subjects:
            prompts = subject.prompts(plan.answers)
            for setting, found in subject.plain.items():
                found.append(plain_engine.measure(subject.directory, prompts, setting, MAX_TOKENS))
        with _serving(subjects) as running:
            key = running.bench_key()
            for subject in subjects:
                _first_tokens(subject, running, key, plan.first_tokens)
                _throughput(subject, running, key, plan.answers)
    return Report(
        name="streaming",
        grids=[_speeds(subjects), _waits(subjects), _processors(subjects)],
        figures={"models": [_figures(subject) for subject in subjects], "rounds": repeats},
        aims=_aims(subjects[0]),
    )


def _texts(count: int) -> Iterator[str]:
    return islice(cycle([message.text for message in MESSAGES]), count)


def _trained() -> Path:
    """The largest reference model that has been evaluated: an unfinished one says nothing."""
    return next(MODELS / name for name in TRAINED if (MODELS / name / "evaluation.json").exists())


def _finalists(subject: Subject) -> list[Setting]:
    """A short trial of every setting, so that the rounds need only repeat the best."""
    prompts = subject.prompts(CLIENTS)
    tried = {
        setting: plain_engine.measure(subject.directory, prompts, setting, _TRIED_TOKENS)
        for setting in SETTINGS
    }
    return sorted(tried, key=lambda one: -tried[one].tokens_per_s)[:_FINALISTS]


@contextlib.contextmanager
def _serving(subjects: Sequence[Subject]) -> Iterator[stack.Stack]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-models-") as scratch:
        for subject in subjects:
            (Path(scratch) / subject.name).symlink_to(subject.directory.resolve())
        with stack.running({"PENSTOCK_MODELS_DIR": scratch}) as running:
            yield running


def _first_tokens(subject: Subject, running: stack.Stack, key: str, count: int) -> None:
    """One request at a time, each prompt in turn by the engine alone and through the stack."""
    url = _url(running)
    stream(url, key, 1, subject.bodies(2, _FEW_TOKENS))  # the key's first request, the model's too
    with plain_engine.loaded(subject.directory, 1, 1) as generator:
        for prompt, body in zip(
            subject.prompts(count), subject.bodies(count, _FEW_TOKENS), strict=True
        ):
            alone_s = plain_engine.first_token_s(generator, prompt)
            through = stream(url, key, 1, [body])
            if through.first_token_s:  # an answer may have no text at all
                subject.plain_first_ms.append(alone_s * 1000)
                subject.idle_first_ms.append(through.first_token_s[0] * 1000)


def _throughput(subject: Subject, running: stack.Stack, key: str, answers: int) -> None:
    before_s = cpu_seconds(running.pids)
    seen = stream(_url(running), key, CLIENTS, subject.bodies(answers, MAX_TOKENS))
    spent_ms = per_request_ms(before_s, cpu_seconds(running.pids), seen.tokens)
    subject.delivered.append(seen.tokens_per_s)
    subject.deltas_per_token.append(seen.deltas / seen.tokens)
    subject.busy_first_ms += [value * 1000 for value in seen.first_token_s]
    subject.cpu_us.append(
        {name: ms * 1000 for name, ms in spent_ms.items()}
        | {"load client": seen.client_cpu_s * 1e6 / seen.tokens}
    )


def _url(running: stack.Stack) -> str:
    return running.http_url.replace("http", "ws", 1) + "/v1/responses"


def _median_speed(found: Sequence[plain_engine.Speed]) -> float:
    return statistics.median(speed.tokens_per_s for speed in found)


def _speeds(subjects: Sequence[Subject]) -> Grid:
    columns = ("model", "CTranslate2 alone", "through the stack", "share", "best setting alone")
    rows = [
        (
            subject.name,
            f"{subject.plain_tokens_per_s:,.0f}",
            f"{subject.tokens_per_s:,.0f}",
            f"{subject.share:.2f}",
            str(subject.best),
        )
        for subject in subjects
    ]
    return Grid(f"Tokens per second, {CLIENTS} WebSocket clients", columns, tuple(rows))


def _waits(subjects: Sequence[Subject]) -> Grid:
    rows = [
        (
            f"{subject.name}, {what}",
            f"{percentile(found, 0.5):.1f}",
            f"{percentile(found, 0.99):.1f}",
        )
        for subject in subjects
        for what, found in (
            ("engine alone", subject.plain_first_ms),
            ("through the idle stack", subject.idle_first_ms),
            ("added", subject.added_ms),
            (f"{CLIENTS} clients, waiting for a slot included", subject.busy_first_ms),
        )
    ]
    return Grid("Time to first token", ("", "p50 ms", "p99 ms"), tuple(rows))


def _processors(subjects: Sequence[Subject]) -> Grid:
    rows = [
        (subject.name, name, f"{value:.0f}")
        for subject in subjects
        for name, value in _cpu_us(subject).items()
    ]
    title = f"Processor time per token, {CLIENTS} clients"
    return Grid(title, ("model", "process", "µs/token"), tuple(rows))


def _cpu_us(subject: Subject) -> dict[str, float]:
    alone = statistics.median(speed.cpu_us_per_token for speed in subject.plain[subject.best])
    return {"CTranslate2 alone": alone, **median_of(subject.cpu_us)}


def _figures(subject: Subject) -> dict[str, Any]:
    return {
        "model": subject.name,
        "plain_tokens_per_s": {
            str(setting): _median_speed(found) for setting, found in subject.plain.items()
        },
        "tokens_per_s": subject.tokens_per_s,
        "share": subject.share,
        "deltas_per_token": statistics.median(subject.deltas_per_token),
        "cpu_us_per_token": _cpu_us(subject),
        **{
            f"{name}_{quantile}_ms": percentile(found, share)
            for name, found in (
                ("engine_first_token", subject.plain_first_ms),
                ("idle_first_token", subject.idle_first_ms),
                ("added_first_token", subject.added_ms),
                ("busy_first_token", subject.busy_first_ms),
            )
            for quantile, share in (("p50", 0.5), ("p99", 0.99))
        },
    }


def _aims(subject: Subject) -> list[Aim]:
    added_ms = percentile(subject.added_ms, 0.5)
    return [
        Aim(
            f"at least {SHARE_AIM:g} of the engine's own tokens/s ({subject.name})",
            f"{subject.share:.2f}",
            subject.share >= SHARE_AIM,
        ),
        Aim(
            f"at most {ADDED_AIM_MS:g} ms added to the first token at p50 ({subject.name})",
            f"{added_ms:.1f} ms",
            added_ms <= ADDED_AIM_MS,
        ),
    ]
