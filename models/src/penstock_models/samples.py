"""Conversations as token ids, and the batches that a training step eats."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock_models import tokenizer as vocabulary
from penstock_models.dialogues import Dialogue, Turn, compact, draw_dialogue
from penstock_models.messages import Message, Task, draw_message
from penstock_models.scene import Grade
from penstock_models.words import Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

LENGTHS = (48, 64, 96, 120, 160, 192, 240, 320, 400, 480)  # each divides the tokens of a batch
BLOCK = 4096  # conversations generated and tokenised at once
FIRST_GRADES = (0.6, 0.3, 0.1)
LAST_GRADES = (0.15, 0.3, 0.55)
FOLLOW_UPS = 0.04  # conversations in which another message came before


@dataclass(frozen=True)
class Batch:
    """Token ids (rows, length), the flattened positions that predict, and what they predict."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Diet:
    """What a model is trained on: the share of tool dialogues and the last mixture of grades."""

    tool_share: float
    last_grades: tuple[float, float, float] = LAST_GRADES
    tasks: tuple[float, ...] = (9, 40, 18, 8, 25)  # weights, in the order of `Task`
    medium_changes: float = 0.4
    easy_start: float = 0.3  # share of the training over which the grades move from first to last

    def grades(self, progress: float) -> list[float]:
        """Weights of easy, medium and hard at `progress` (0 to 1) of the training."""
        moved = min(1.0, progress / self.easy_start) if self.easy_start else 1.0
        pairs = zip(FIRST_GRADES, self.last_grades, strict=True)
        return [first + (last - first) * moved for first, last in pairs]


def draw_conversation(random: Random, diet: Diet, progress: float) -> Dialogue:
    """One conversation for training."""
    if random.random() < diet.tool_share:
        return draw_dialogue(random, Split.TRAIN)
    message = _draw(random, diet, progress)
    turns: tuple[Turn, ...] = (
        Turn("user", message.text),
        Turn("assistant", compact(message.answer)),
    )
    if random.random() < FOLLOW_UPS:
        earlier = draw_message(random, Split.TRAIN, random.choice(tuple(Task)), Grade.EASY)
        before = (Turn("user", earlier.text), Turn("assistant", compact(earlier.answer)))
        turns = (*before, *turns)
    return Dialogue((), turns, message, failed=False)


def _draw(random: Random, diet: Diet, progress: float) -> Message:
    task = random.choices(tuple(Task), diet.tasks)[0]
    grade = random.choices(tuple(Grade), diet.grades(progress))[0]
    return draw_message(random, Split.TRAIN, task, grade, diet.medium_changes)


class Encoder:
    """Turns conversations into ids; content can never become a special token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer` is changed: it encodes special tokens in content as plain text."""
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self._ids = {name: vocabulary.id_of(tokenizer, name) for name in vocabulary.SPECIALS}

    def encode(self, dialogues: list[Dialogue]) -> list[tuple[list[int], list[bool]]]:
        """Ids of each conversation, and which of them the model has to predict."""
        texts = [text for dialogue in dialogues for text in contents_of(dialogue)]
        encoded = iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        return [self._assemble(dialogue, encoded) for dialogue in dialogues]

    def _assemble(self, dialogue: Dialogue, encoded: Iterator[Any]) -> tuple[list[int], list[bool]]:
        ids, learned = [self._ids[vocabulary.BEGIN]], [False]

        def add(more: list[int], *, learn: bool) -> None:
            ids.extend(more)
            learned.extend([learn] * len(more))

        end = [self._ids[vocabulary.END]]
        if dialogue.tools:
            add([self._ids[vocabulary.TOOLS], *next(encoded).ids, *end], learn=False)
        for turn in dialogue.turns:
            content = next(encoded).ids
            if turn.role in {"user", "tool"}:
                add([self._ids[f"<|{turn.role}|>"], *content, *end], learn=False)
                continue
            add([self._ids[vocabulary.ASSISTANT]], learn=False)
            call = [self._ids[vocabulary.CALL]] if turn.role == "call" else []
            add([*call, *content, *end], learn=True)
        return ids, learned


def contents_of(dialogue: Dialogue) -> list[str]:
    """The texts of a conversation that are encoded each by itself."""
    offered = [" ".join(dialogue.tools)] if dialogue.tools else []
    return offered + [turn.text for turn in dialogue.turns]


class Feeder:
    """Batches of `tokens` tokens each, grouped by length, in an order that the seed fixes."""

    def __init__(self, encoder: Encoder, diet: Diet, tokens: int) -> None:
        """`tokens` per batch must be divisible by every length of `LENGTHS`."""
        self._encoder, self._diet, self._tokens = encoder, diet, tokens
        self._waiting: dict[int, list[tuple[list[int], list[bool]]]] = {n: [] for n in LENGTHS}

    def batches(self, seed: str, progress: float) -> list[Batch]:
        """The batches that one more block fills; what is left over waits for the next block."""
        random = Random(seed)
        drawn = [draw_conversation(random, self._diet, progress) for _ in range(BLOCK)]
        for ids, learned in self._encoder.encode(drawn):
            length = next((length for length in LENGTHS if len(ids) - 1 <= length), None)
            if length is not None:
                self._waiting[length].append((ids, learned))
        full = [batch for length in LENGTHS for batch in self._full_batches(length)]
        random.shuffle(full)
        return full

    def _full_batches(self, length: int) -> Iterator[Batch]:
        rows, waiting = self._tokens // length, self._waiting[length]
        while len(waiting) >= rows:
            taken, waiting[:rows] = waiting[:rows], []
            yield pack(taken, length)


def pack(rows: list[tuple[list[int], list[bool]]], length: int) -> Batch:
    """Rows side by side, padded at the end; position i predicts token i + 1."""
    tokens = np.zeros((len(rows), length), dtype=np.int64)
    positions: list[int] = []
    targets: list[int] = []
    for row, (ids, learned) in enumerate(rows):
        tokens[row, : len(ids) - 1] = ids[:-1]
        for at in range(1, len(ids)):
            if learned[at]:
                positions.append(row * length + at - 1)
                targets.append(ids[at])
    return Batch(tokens, np.array(positions), np.array(targets))
