"""Changes of mind: what the customer takes back must not be in the answer."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_models import amendments, dialogues
from penstock_models.articles import Line, say_line
from penstock_models.noise import roughen
from penstock_models.scene import CLOSE, OPEN, Grade, Language, Scene
from penstock_models.words import Split

SEEDS = st.integers(min_value=0, max_value=2**32)
LANGUAGES = st.sampled_from(Language)


def scene(seed: int, language: Language, grade: Grade = Grade.HARD) -> Scene:
    """A scene for one test."""
    return Scene(Random(seed), Split.TRAIN, language, grade)


def two_lines() -> list[Line]:
    """Three mugs and two lamps."""
    return [Line("mug", "mug", "mugs", "a", 3), Line("lamp", "lamp", "lamps", "a", 2)]


def plain(text: str) -> str:
    """`text` without the marks around what is copied."""
    return text.replace(OPEN, "").replace(CLOSE, "")


@settings(max_examples=80, deadline=None)
@given(SEEDS, LANGUAGES)
def test_an_amendment_changes_the_lines_and_says_so(seed: int, language: Language) -> None:
    """Each amendment alters the order, keeps a line, and names what it alters."""
    lines = two_lines()
    before = [line.answer() for line in lines]
    said = plain(amendments.amend(scene(seed, language), lines))
    after = [line.answer() for line in lines]
    assert lines
    assert after != before
    for item in before:
        if item not in after:
            assert item["item"] in said


@settings(max_examples=40, deadline=None)
@given(SEEDS, LANGUAGES)
def test_a_cancelled_line_is_gone(seed: int, language: Language) -> None:
    """When a line disappears it is the one that the sentence names."""
    lines = two_lines()
    said = plain(amendments.amend(scene(seed, language), lines))
    left = {line.item for line in lines}
    for item in {"mug", "lamp"} - left:
        assert item in said


@settings(max_examples=40, deadline=None)
@given(SEEDS, LANGUAGES)
def test_an_inline_correction_changes_the_quantity(seed: int, language: Language) -> None:
    """After "no, make that …" the line holds another quantity, of at least two."""
    line = two_lines()[0]
    amendments.correct_inline(scene(seed, language), line)
    assert line.quantity != 3
    assert line.quantity >= 2


@settings(max_examples=80, deadline=None)
@given(SEEDS, LANGUAGES)
def test_noise_never_touches_what_is_copied(seed: int, language: Language) -> None:
    """A typing error never falls into a name or a quantity."""
    current = scene(seed, language)
    line = Line("Velmora", "Velmora", "Velmora", "a", 17)
    text = roughen(current, f"something quite interesting {say_line(current, line)} altogether")
    assert "Velmora" in text


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_call_uses_what_the_result_before_it_said(seed: int) -> None:
    """Identifiers in calls and in the final answer all stand in an earlier result."""
    dialogue = dialogues.draw_dialogue(Random(seed), Split.TRAIN)
    results = " ".join(turn.text for turn in dialogue.turns if turn.role == "tool")
    calls = [turn.text for turn in dialogue.turns if turn.role == "call"]
    if len(calls) > 1:
        reservation = calls[1].split('"reservation":"')[1].split('"')[0]
        assert reservation in results
    if dialogue.failed:
        assert '"status":"failed"' in dialogue.turns[-1].text
        assert '"error"' in results
