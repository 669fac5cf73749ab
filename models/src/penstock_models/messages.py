"""Customer messages with their answers, generated: standard library only.

`python -m penstock_models.messages --seed 7 --count 20 --json` prints some. The same seed gives the
same messages. Held-out messages share no invented word with those for training (see `words`), and
messages without one (questions, mostly) are kept apart by their own hash.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING

from penstock_models.faq import write_faq
from penstock_models.leads import write_lead
from penstock_models.multi import write_multi
from penstock_models.noise import surround
from penstock_models.orders import write_order
from penstock_models.others import write_other
from penstock_models.scene import Answer, Grade, Language, Scene
from penstock_models.words import Split, side_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HELD_OUT_SEED = 20_261_120
HELD_OUT_PER_CELL = 160  # messages per task and grade: 15 cells, 2,400 messages


class Task(StrEnum):
    """What a message asks for."""

    FAQ = "faq"
    ORDER = "order"
    LEAD = "lead"
    OTHER = "other"
    MULTI = "multi"


WRITERS = {
    Task.FAQ: write_faq,
    Task.ORDER: write_order,
    Task.LEAD: write_lead,
    Task.OTHER: write_other,
    Task.MULTI: write_multi,
}


@dataclass(frozen=True)
class Message:
    """A customer's message, the answer that is right, and the invented words that it holds."""

    text: str
    answer: Answer
    task: Task
    grade: Grade
    language: Language
    split: Split
    invented: tuple[str, ...]


def draw_message(
    random: Random, split: Split, task: Task, grade: Grade, medium_changes: float = 0.4
) -> Message:
    """One message of the given task and grade, on the given side of the split.

    Training may ask for more changes of mind in orders of medium grade than people have.
    """
    while True:
        german = random.random() < (0.25 if grade is Grade.EASY else 0.4)
        language = Language.GERMAN if german else Language.ENGLISH
        lower = random.random() < (0.03 if grade is Grade.EASY else 0.1)
        scene = Scene(random, split, language, grade, lower, medium_changes)
        request, answer = WRITERS[task](scene)
        text = surround(scene, request)
        # Without an invented word only the text itself can tell the two sides apart.
        if scene.invented or side_of(text) is split:
            return Message(text, answer, task, grade, language, split, tuple(scene.invented))


def messages(
    random: Random,
    split: Split = Split.TRAIN,
    tasks: Sequence[Task] = tuple(Task),
    grades: Sequence[Grade] = tuple(Grade),
) -> Iterator[Message]:
    """Messages without end: every task and grade in equal shares, in turn."""
    for task, grade in itertools.cycle(itertools.product(tasks, grades)):
        yield draw_message(random, split, task, grade)


def held_out_messages(per_cell: int = HELD_OUT_PER_CELL) -> list[Message]:
    """The fixed set by which models are judged: `per_cell` messages per task and grade."""
    drawn = messages(Random(HELD_OUT_SEED), Split.HELD_OUT)
    return list(itertools.islice(drawn, per_cell * len(Task) * len(Grade)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print messages, one per line as JSON or as text with its answer."""
    parser = argparse.ArgumentParser(description="Print generated customer messages.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--split", type=Split, choices=list(Split), default=Split.TRAIN)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args(arguments)
    drawn = messages(Random(options.seed), options.split)
    for message in itertools.islice(drawn, options.count):
        if options.json:
            print(json.dumps(asdict(message), ensure_ascii=False))
        else:
            print(f"[{message.task} {message.grade} {message.language}] {message.text}")
            print(f"    {json.dumps(message.answer, ensure_ascii=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
