"""The yardstick: CTranslate2 as a script would use it, without any service around it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import ctranslate2

THREADS: Final = (1, 2)
BATCHES: Final = (8, 16, 32)
_WARM_UP_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """How the engine is run: batches side by side, threads per batch, items per batch."""

    inter_threads: int
    intra_threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.inter_threads} by {self.intra_threads} threads, batches of {self.batch}"


SETTINGS: Final = tuple(itertools.starmap(Setting, itertools.product(THREADS, THREADS, BATCHES)))


@contextmanager
def loaded(directory: Path, inter_threads: int, intra_threads: int) -> Iterator[Any]:
    """The model on the processor in int8, as the worker loads it."""
    generator = ctranslate2.Generator(
        str(directory),
        device="cpu",
        compute_type="int8",
        inter_threads=inter_threads,
        intra_threads=intra_threads,
    )
    try:
        yield generator
    finally:
        generator.unload_model()


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run of it reached, and what it cost."""

    tokens_per_s: float
    cpu_us_per_token: float


def measure(directory: Path, prompts: list[list[str]], setting: Setting, max_tokens: int) -> Speed:
    """All prompts handed over at once, sorted by length and batched by CTranslate2 itself."""
    with loaded(directory, setting.inter_threads, setting.intra_threads) as generator:
        _generate(generator, prompts[: setting.batch], setting, _WARM_UP_TOKENS)
        started_s, cpu_before_s = perf_counter(), process_time()
        tokens = _generate(generator, prompts, setting, max_tokens)
        return Speed(
            tokens_per_s=tokens / (perf_counter() - started_s),
            cpu_us_per_token=(process_time() - cpu_before_s) * 1e6 / tokens,
        )


def first_token_s(generator: Any, prompt: list[str]) -> float:
    """From the call to the callback of the first token, for one prompt alone."""
    started_s = perf_counter()
    first_s: list[float] = []

    def stop_at_once(_: Any) -> bool:
        first_s.append(perf_counter() - started_s)
        return True

    generator.generate_batch(
        [prompt], max_length=2, include_prompt_in_result=False, callback=stop_at_once
    )
    return first_s[0]


def _generate(generator: Any, prompts: list[list[str]], setting: Setting, max_tokens: int) -> int:
    results = generator.generate_batch(
        prompts,
        max_batch_size=setting.batch,
        max_length=max_tokens,
        include_prompt_in_result=False,
    )
    return sum(len(result.sequences_ids[0]) for result in results)
