"""What both reference models make of the same messages, and what it costs them: for the router.

`python -m penstock_models.outcomes --models models --out models/outcomes/reference.jsonl.gz` writes
one JSON object per message, in the format of RouteLLM's outcomes (`prompt`, `domain`, `weak`,
`strong`) with each model's run beside it. It needs `ctranslate2`, `tokenizers` and `jsonschema-rs`.

Messages are held out from training (their invented words are) and are none of those by which the
models are judged. Every message is answered alone, by one thread, greedily. What it cost is the
processor time of that, the least of `--repeats` measurements: other programs can only add to it.
It is taken twice: with the call for every token by which a worker streams and stops, and without.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import process_time
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from penstock_models.answer_schema import ANSWER_SCHEMA
from penstock_models.evaluate import Model, ask, same
from penstock_models.messages import Message, Task, draw_message, held_out_messages
from penstock_models.scene import Grade
from penstock_models.words import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

SEED = 20_261_121
PER_CELL = 480  # messages per task and grade: 15 cells, 7,200 messages
REPEATS = 2
WEAK, STRONG = "penstock-small", "penstock-large"
WARM_UP = 3  # messages


@dataclass(frozen=True)
class Run:
    """One model's answer to one message, as numbers."""

    input_tokens: int
    output_tokens: int  # as the worker bills them: without the end token
    cpu_us: int  # as a worker runs it: it hears of every token
    engine_cpu_us: int  # the engine left alone
    confidence: float | None  # as the worker measures it: see `confidence`
    schema_ok: bool


def distinct_messages(seed: int, per_cell: int) -> Iterator[Message]:
    """`per_cell` messages of each task and grade, in turn; no text comes twice or is judged by."""
    random, seen = Random(seed), {message.text for message in held_out_messages()}
    for _, task, grade in itertools.product(range(per_cell), Task, Grade):
        message = draw_message(random, Split.HELD_OUT, task, grade)
        while message.text in seen:
            message = draw_message(random, Split.HELD_OUT, task, grade)
        seen.add(message.text)
        yield message


def confidence(log_probs: Sequence[float]) -> float | None:
    """The geometric mean of the tokens' probabilities, as the worker's `domain/flaw.py` has it."""
    if not log_probs:
        return None
    mean = min(sum(log_probs) / len(log_probs), 0.0)
    return round(max(math.exp(mean), math.ulp(0.0)), 6)


def run(model: Model, message: Message, repeats: int) -> tuple[Run, bool]:
    """The model's run on a message, and whether its answer is exactly right."""
    prompt = model.prompts([ask(message)])[0]
    answer, log_probs = model.scored(prompt)
    seen = Run(
        input_tokens=len(prompt),
        output_tokens=len(log_probs),
        cpu_us=_least_cpu_us(lambda: model.scored(prompt), repeats),
        engine_cpu_us=_least_cpu_us(lambda: model.complete(prompt), repeats),
        confidence=confidence(log_probs),
        schema_ok=_fits(answer),
    )
    return seen, same(answer, message.answer)


def _least_cpu_us(work: Callable[[], object], repeats: int) -> int:
    spent_s = []
    for _ in range(repeats):
        began_s = process_time()
        work()
        spent_s.append(process_time() - began_s)
    return round(min(spent_s) * 1e6)


_SCHEMA = jsonschema_rs.Draft202012Validator(ANSWER_SCHEMA)


def _fits(answer: str) -> bool:
    try:
        return _SCHEMA.is_valid(json.loads(answer))
    except json.JSONDecodeError:
        return False


def rows(models: Path, seed: int, per_cell: int, repeats: int) -> Iterator[dict[str, Any]]:
    """One row per message; the two models take turns, so that a busy machine slows both alike."""
    with closing(Model(models / WEAK)) as weak, closing(Model(models / STRONG)) as strong:
        for message in itertools.islice(distinct_messages(seed + 1, 1), WARM_UP):
            for model in (weak, strong):
                run(model, message, 1)
        for message in distinct_messages(seed, per_cell):
            weak_run, weak_right = run(weak, message, repeats)
            strong_run, strong_right = run(strong, message, repeats)
            yield {
                "prompt": message.text,
                "domain": f"{message.task}/{message.grade}",
                "weak": weak_right,
                "strong": strong_right,
                "weak_run": asdict(weak_run),
                "strong_run": asdict(strong_run),
            }


def write(out: Path, written: Iterable[dict[str, Any]]) -> None:
    """Write rows as gzip that holds no time: the same rows are the same file."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in written]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Outcomes of both reference models.")
    parser.add_argument("--models", type=Path, default=Path("models"), help="their folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--per-cell", type=int, default=PER_CELL)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args(arguments)
    write(options.out, rows(options.models, options.seed, options.per_cell, options.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
