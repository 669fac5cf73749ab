"""The generator of customer messages: its promises to training, tests and the router."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_models import lexicon
from penstock_models.faq import TOPICS
from penstock_models.messages import (
    Message,
    Task,
    draw_message,
    held_out_messages,
    main,
    messages,
)
from penstock_models.scene import Grade
from penstock_models.words import Split, side_of

SEEDS = st.integers(min_value=0, max_value=2**32)
FIELDS = {
    "faq": {"intent", "topic"},
    "order": {"intent", "items", "place"},
    "lead": {"intent", "name", "company", "seats"},
    "other": {"intent"},
    "multi": {"intent", "parts"},
}


def take(count: int, seed: int = 1, split: Split = Split.TRAIN) -> list[Message]:
    """The first `count` messages of a seed."""
    return list(itertools.islice(messages(Random(seed), split), count))


def parts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The single answers that an answer consists of."""
    return list(answer.get("parts", [answer]))


def check_schema(answer: dict[str, Any]) -> None:
    """Raise AssertionError unless `answer` obeys the schema of its intent."""
    assert set(answer) <= FIELDS[answer["intent"]]
    if answer["intent"] == "multi":
        assert len(answer["parts"]) == 2
        for part in answer["parts"]:
            assert part["intent"] in {"faq", "order", "lead"}
            check_schema(part)
    if answer["intent"] == "faq":
        assert answer["topic"] in TOPICS
    if answer["intent"] == "lead":
        assert {"name", "company"} <= set(answer)
        assert 1 < answer.get("seats", 2) <= 20_000
    for item in answer.get("items", []):
        assert {"item", "quantity"} <= set(item) <= {"item", "quantity", "size", "color"}
        assert 1 <= item["quantity"] <= 999
        assert item.get("size", "M") in lexicon.SIZES
        assert item.get("color", "red") in lexicon.COLOUR_NAMES


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(Task), st.sampled_from(Grade), st.sampled_from(Split))
def test_answers_are_json_and_obey_the_schema(
    seed: int, task: Task, grade: Grade, split: Split
) -> None:
    """Whatever the seed, an answer survives JSON, names its task and has only the known fields."""
    message = draw_message(Random(seed), split, task, grade)
    assert json.loads(json.dumps(message.answer)) == message.answer
    assert message.answer["intent"] == task.value
    check_schema(message.answer)
    if task is Task.ORDER:
        assert 1 <= len(message.answer["items"]) <= 5


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_same_seed_gives_the_same_messages(seed: int) -> None:
    """A seed is all that is needed to get the same messages again."""
    assert take(15, seed) == take(15, seed)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_what_is_copied_stands_in_the_message_as_written(seed: int) -> None:
    """Names, companies, places and invented articles can be copied letter by letter."""
    for message in take(15, seed):
        for part in parts(message.answer):
            for field in ("name", "company", "place"):
                assert part.get(field, "") in message.text
            for item in part.get("items", []):
                known = {noun.singular.lower() for noun in _nouns()}
                plural_of_known = item["item"].lower().split()[-1] in known
                assert plural_of_known or item["item"] in message.text


def _nouns() -> tuple[lexicon.Noun, ...]:
    return (*lexicon.ENGLISH_NOUNS, *lexicon.GERMAN_NOUNS)


def test_no_template_or_mark_is_left_in_a_message() -> None:
    """Every slot is filled: no braces, angle brackets, bars or control characters remain."""
    for message in take(3000):
        assert not re.search(r"[{}<>|\x02\x03]", message.text), message.text


def test_grades_and_tasks_come_in_equal_shares() -> None:
    """Every task and grade has the same number of messages, also in the held-out set."""
    for drawn in (take(1500), held_out_messages(per_cell=4)):
        cells = Counter((message.task, message.grade) for message in drawn)
        assert len(cells) == len(Task) * len(Grade)
        assert len(set(cells.values())) == 1


def test_held_out_words_never_occur_in_training() -> None:
    """No invented word of the held-out set may be used in training, nor stands in the lexicon."""
    held_out = {word.lower() for message in held_out_messages() for word in message.invented}
    trained = {word.lower() for message in take(20_000) for word in message.invented}
    assert len(held_out) > 1000
    assert not held_out & trained
    assert all(side_of(word) is Split.HELD_OUT for word in held_out)
    assert all(side_of(word) is Split.TRAIN for word in trained)
    assert not held_out & {noun.singular.lower() for noun in _nouns()}
    assert not held_out & {name.lower() for name in lexicon.REAL_PLACES}


def test_held_out_messages_never_occur_in_training() -> None:
    """Also messages without an invented word are kept apart."""
    held_out = {message.text for message in held_out_messages()}
    assert not held_out & {message.text for message in take(20_000, seed=5)}


def test_held_out_names_are_all_invented() -> None:
    """No real name, which training may have seen, helps in the held-out set."""
    real = set(lexicon.REAL_PLACES)
    for message in held_out_messages(per_cell=20):
        for part in parts(message.answer):
            assert part.get("place") not in real


def test_hard_messages_are_longer_than_easy_ones() -> None:
    """The grade means something: the text grows with it."""
    lengths = dict.fromkeys(Grade, 0)
    for message in take(3000):
        lengths[message.grade] += len(message.text)
    assert lengths[Grade.EASY] < lengths[Grade.MEDIUM] < lengths[Grade.HARD]


def test_the_command_prints_one_json_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` gives as many lines as asked for, each a message with its answer."""
    assert main(["--seed", "7", "--count", "20", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 20
    assert all({"text", "answer", "task", "grade"} <= set(line) for line in lines)
