"""Exact match of an int8 model, as CTranslate2 runs it, on messages it has never seen.

`python -m penstock_models.evaluate models/penstock-large` prints a table of task by grade. An
answer counts only if it is the right JSON value, whole; nothing is repaired.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import ctranslate2
from tokenizers import Tokenizer

from penstock_models import tokenizer as vocabulary
from penstock_models.dialogues import Dialogue, Turn, draw_dialogue
from penstock_models.messages import HELD_OUT_PER_CELL, HELD_OUT_SEED, Task, held_out_messages
from penstock_models.samples import Encoder
from penstock_models.scene import Grade
from penstock_models.words import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock_models.messages import Message

ANSWER_TOKENS = 400
BATCH_TOKENS = 8192
DIALOGUES = 200


@dataclass(frozen=True)
class Verdict:
    """What the model answered to one message, and whether that was right."""

    message: Message
    answer: str
    right: bool


class Model:
    """A reference model as it is served: int8, greedy."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        """Load the CTranslate2 files and the tokenizer of `directory`."""
        self._generator: Any = ctranslate2.Generator(
            str(directory),
            device="cpu",
            compute_type="int8",
            inter_threads=threads,
            intra_threads=1,
        )
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._encoder = Encoder(self._tokenizer)
        self._end = vocabulary.id_of(self._tokenizer, vocabulary.END)

    def answer(self, dialogues: list[Dialogue]) -> list[str]:
        """The next assistant turn of each conversation; a call begins with `<|call|>`."""
        results = self._generator.generate_batch(
            self.prompts(dialogues),
            max_batch_size=BATCH_TOKENS,
            batch_type="tokens",
            max_length=ANSWER_TOKENS,
            end_token=vocabulary.END,
            include_prompt_in_result=False,
        )
        return [self._text(result.sequences_ids[0]) for result in results]

    def prompts(self, dialogues: list[Dialogue]) -> list[list[str]]:
        """Each conversation's tokens, ready for the assistant's turn."""
        return [
            [str(self._tokenizer.id_to_token(token)) for token in ids] + [vocabulary.ASSISTANT]
            for ids, _ in self._encoder.encode(dialogues)
        ]

    def complete(self, prompt: list[str], callback: Callable[[Any], bool] | None = None) -> None:
        """Answer one prompt; `callback` hears of every token and stops with True."""
        self._generator.generate_batch(
            [prompt],
            max_length=ANSWER_TOKENS,
            end_token=vocabulary.END,
            include_prompt_in_result=False,
            return_scores=True,
            callback=callback,
        )

    def scored(self, prompt: list[str]) -> tuple[str, list[float]]:
        """The answer to one prompt, and the log-probability of each token but the end."""
        tokens: list[int] = []
        log_probs: list[float] = []

        def on_token(step: Any) -> bool:
            if step.token_id != self._end:
                tokens.append(step.token_id)
                log_probs.append(step.log_prob)
            return False

        self.complete(prompt, callback=on_token)
        return self._text(tokens), log_probs

    def close(self) -> None:
        """Free the model. Left to the interpreter's exit, its threads can abort the process."""
        self._generator.unload_model()
        self._generator = None

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def ask(message: Message) -> Dialogue:
    """A conversation that holds only the customer's message."""
    return Dialogue((), (Turn("user", message.text),), message, failed=False)


def same(answer: str, expected: Any) -> bool:
    """Whether `answer` is JSON that equals `expected`."""
    try:
        return bool(json.loads(answer) == expected)
    except json.JSONDecodeError:
        return False


def judge(model: Model, messages: list[Message]) -> list[Verdict]:
    """The model's verdicts on `messages`."""
    answers = model.answer([ask(message) for message in messages])
    return [
        Verdict(message, answer, same(answer, message.answer))
        for message, answer in zip(messages, answers, strict=True)
    ]


def play(model: Model, dialogue: Dialogue) -> bool:
    """Whether every assistant turn of `dialogue` is right, given the right turns before it."""
    return all(_turns_right(model, [dialogue])[0])


def judge_dialogues(model: Model, count: int) -> dict[str, float]:
    """Exact match over turns and over whole conversations with tools, held out."""
    random = Random(HELD_OUT_SEED + 1)
    drawn = [draw_dialogue(random, Split.HELD_OUT) for _ in range(count)]
    verdicts = _turns_right(model, drawn)
    turns = [right for verdict in verdicts for right in verdict]
    return {
        "turns": sum(turns) / len(turns),
        "dialogues": sum(all(verdict) for verdict in verdicts) / len(verdicts),
        "count": len(verdicts),
    }


def _turns_right(model: Model, dialogues: list[Dialogue]) -> list[list[bool]]:
    prompts, expected, owners = [], [], []
    for number, dialogue in enumerate(dialogues):
        for at, turn in enumerate(dialogue.turns):
            if turn.role in {"assistant", "call"}:
                before = dialogue.turns[:at]
                prompts.append(Dialogue(dialogue.tools, before, dialogue.message, dialogue.failed))
                expected.append((vocabulary.CALL if turn.role == "call" else "") + turn.text)
                owners.append(number)
    verdicts: list[list[bool]] = [[] for _ in dialogues]
    for owner, answer, right in zip(owners, model.answer(prompts), expected, strict=True):
        verdicts[owner].append(answer == right)
    return verdicts


def tabulate(verdicts: list[Verdict]) -> dict[str, dict[str, float]]:
    """Exact match by task and grade, with `all` for the sums."""
    counted: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for verdict in verdicts:
        task, grade = verdict.message.task.value, verdict.message.grade.value
        for key in ((task, grade), (task, "all"), ("all", grade), ("all", "all")):
            counted[key].append(verdict.right)
    table: dict[str, dict[str, float]] = {}
    for task in (*(task.value for task in Task), "all"):
        columns = (*(grade.value for grade in Grade), "all")
        table[task] = {grade: _share(counted[task, grade]) for grade in columns}
    return table


def _share(values: list[bool]) -> float:
    return round(sum(values) / max(1, len(values)), 4)


def show(table: dict[str, dict[str, float]]) -> str:
    """The table as Markdown, in percent."""
    columns = (*(grade.value for grade in Grade), "all")
    lines = [f"| task | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for task, row in table.items():
        cells = " | ".join(f"{100 * row[grade]:.1f}" for grade in columns)
        lines.append(f"| {task} | {cells} |")
    return "\n".join(lines)


def evaluate(directory: Path, per_cell: int, dialogues: int, misses: int = 0) -> dict[str, Any]:
    """Measure the model in `directory`; prints the first `misses` wrong answers."""
    model, began = Model(directory), time.monotonic()
    verdicts = judge(model, held_out_messages(per_cell))
    for verdict in [verdict for verdict in verdicts if not verdict.right][:misses]:
        print(f"--- {verdict.message.task} {verdict.message.grade}: {verdict.message.text}")
        print(f"  want {json.dumps(verdict.message.answer, ensure_ascii=False)}")
        print(f"  got  {verdict.answer}")
    report: dict[str, Any] = {
        "model": directory.name,
        "seed": HELD_OUT_SEED,
        "messages": len(verdicts),
        "exact": tabulate(verdicts),
        "seconds": round(time.monotonic() - began, 1),
    }
    if dialogues:
        report["tools"] = judge_dialogues(model, dialogues)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or the whole report as JSON."""
    parser = argparse.ArgumentParser(description="Exact match of a reference model.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per-cell", type=int, default=HELD_OUT_PER_CELL)
    parser.add_argument("--dialogues", type=int, default=0, help=f"with tools; {DIALOGUES} is fair")
    parser.add_argument("--misses", type=int, default=0, help="print so many wrong answers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    report = evaluate(options.directory, options.per_cell, options.dialogues, options.misses)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print(show(report["exact"]))
        print({key: value for key, value in report.items() if key != "exact"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
