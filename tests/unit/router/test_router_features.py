"""What the router sees of a request: bounded, the same every time, and never content."""

from __future__ import annotations

import json
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.domain.features import (
    CODE,
    CONTEXT_DIMS,
    CONTEXT_TEXT_DIMS,
    LIST,
    MATH,
    QUESTION,
    Features,
    features_of,
    unpack_context,
)
from penstock_router.domain.lexicon import HEAD_CHARS, KNOWN_WORDS, TAIL_CHARS, Lexicon
from penstock_router.domain.text_build import BUILD_DIMS
from penstock_shared.contracts.requests import ChatMessage, Content

LEXICON = load_lexicon()
PLANES = [chr(plane * 0x10000 + at) for plane in range(17) for at in (0x41, 0x3B1, 0x4E00, 0xFFF0)]
MOST_S = 2.0
"""Processor time that even the worst input stays below, by two orders of magnitude."""


def said(text: str, **rest: object) -> Content:
    return Content(messages=(ChatMessage(role="user", content=text),), **rest)


def seen(text: str, **rest: object) -> Features:
    return features_of(said(text, **rest), LEXICON)


def sound(features: Features) -> None:
    """Finite numbers of the promised shapes, and a context that reads back."""
    assert features.build.shape == (BUILD_DIMS,)
    assert np.isfinite(features.build).all()
    assert np.isfinite(features.text).all()
    context = unpack_context(features.context())
    assert context.shape == (CONTEXT_DIMS,)
    assert context[0] == 1
    assert (np.abs(context) <= 1).all()
    json.dumps(features.as_numbers(), allow_nan=False)


@pytest.mark.parametrize("text", ["", " \n\t", *PLANES, "".join(PLANES), " ".join(PLANES)])
def test_every_plane_of_unicode_and_nothing_at_all(text: str) -> None:
    """Whatever the text is made of, what is seen of it are sound numbers."""
    features = seen(text)
    sound(features)
    assert (features.token_count > 0) == bool(text.strip())


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=200)
def test_any_text_reads_the_same_twice_and_in_another_process(text: str) -> None:
    """What was read before leaves no trace: a full, a fresh and a used table agree."""
    fresh = Lexicon(LEXICON._pieces, LEXICON._vectors)
    first, again, other = seen(text), seen(text), features_of(said(text), fresh)
    sound(first)
    assert first.context() == again.context() == other.context()
    assert first.as_numbers() == other.as_numbers()
    assert (first.terms == other.terms).all()


@pytest.mark.parametrize(
    "text",
    ["word " * 200_000, "x" * 800_000, "一" * 200_000, ", " * 200_000, "\n" * 300_000],
    ids=["words", "one word", "chinese", "signs", "lines"],
)
def test_200_000_tokens_take_no_longer_than_the_part_that_is_read(text: str) -> None:
    """A huge text is read at head and tail only, and its tokens are scaled up."""
    began = process_time()
    features = seen(text)
    assert process_time() - began < MOST_S
    sound(features)
    assert len(features.terms) <= HEAD_CHARS + TAIL_CHARS
    if text.strip():
        head = seen(text[: HEAD_CHARS + TAIL_CHARS])
        scale = len(text) / (HEAD_CHARS + TAIL_CHARS)
        assert features.token_count == pytest.approx(head.token_count * scale, rel=0.01)


def test_a_flood_of_new_words_does_not_grow_the_memory() -> None:
    """Words that nobody repeats are forgotten: the table keeps its size, and reads right."""
    lexicon = Lexicon(LEXICON._pieces, LEXICON._vectors)
    for start in range(0, KNOWN_WORDS + 6_000, 2_000):
        lexicon.read(" ".join(f"w{number}" for number in range(start, start + 2_000)))
        assert len(lexicon._rows) <= KNOWN_WORDS
    text = "How many days until my parcel arrives in Vienna?"
    assert features_of(said(text), lexicon).context() == seen(text).context()


def test_the_end_of_a_long_text_is_read() -> None:
    """The question often comes last."""
    text = "filler " * 20_000
    assert not seen(text).domain_flags & QUESTION
    assert seen(f"{text}Is it so?").domain_flags & QUESTION


def test_likeness_of_meaning_shows_in_the_vector() -> None:
    """Vectors are real ones: a paraphrase is nearer than another subject."""
    asked = seen("Where is my parcel? It should have been delivered on Monday.").text
    alike = seen("My package has not arrived yet, when does the delivery come?").text
    other = seen("Compute the derivative of the polynomial and find its roots.").text
    assert asked @ alike > asked @ other + 0.2


def test_flags_and_shape_say_what_a_request_is_like() -> None:
    """A task's shape is one of a few words, whatever the text."""
    code = seen("def f(x): { return x; } if (a == b) { c = d; } // <html> </html>")
    assert code.domain_flags & CODE
    assert seen("If x^2 + 3*y = 7 and y > 2, what is x * y?").domain_flags & MATH
    assert seen("Two shirts, one hat, a belt, three socks, and shoes").domain_flags & LIST
    assert seen("hello").shape() == "free-short-plain"
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
    }
    assert seen("hello", output_schema=schema).shape().startswith(("loose", "strict"))


@pytest.mark.parametrize("said", ["no", "Sorry", "my name is Bob", "Anna " * 9, "no " * 30])
def test_the_context_of_a_very_short_text_says_nothing(said: str) -> None:
    """Below eight tokens, or where they repeat, it would say which words they were (I10).

    "no" is the one negation of two letters, and a name that is repeated is a direction of its own.
    """
    longer = seen("my name is Bob and I live in a small town")
    assert seen(said).context() == seen("").context()
    assert unpack_context(longer.context())[-CONTEXT_TEXT_DIMS:].any()


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def test_strictness_rises_with_what_a_schema_asks_for() -> None:
    """Between 0 without a schema and 1; depth, required fields, enums and bounds each count."""
    plain: dict[str, object] = {"type": "object"}
    rising: list[dict[str, object] | None] = [
        None,
        plain,
        {**plain, "required": ["a", "b"]},
        {**plain, "required": ["a", "b"], "properties": {"a": {"enum": ["x"]}}},
        {
            **plain,
            "required": ["a", "b"],
            "properties": {"a": {"enum": ["x"]}, "b": {"minimum": 1, "maximum": 3}},
        },
    ]
    found = [seen("x", output_schema=schema).json_schema_strictness for schema in rising]
    assert found[0] == 0
    assert found == sorted(set(found))
    assert found[-1] < 1
    deep = [seen("x", output_schema=nested(levels)).json_schema_strictness for levels in (1, 3)]
    assert deep[0] < deep[1]


def test_enormous_and_recursive_schemas_take_bounded_time() -> None:
    """References are not followed, and only so many nodes are looked at."""
    wide = {f"f{n}": {"enum": [n]} for n in range(200_000)}
    schemas: list[dict[str, object]] = [
        {"properties": wide},
        {"$defs": {"n": {"properties": {"c": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        nested(400),
        {"allOf": [[[{}]]] * 100_000},
    ]
    began = process_time()
    for schema in schemas:
        assert 0 < seen("x", output_schema=schema).json_schema_strictness <= 1
    assert process_time() - began < MOST_S


def test_a_context_of_another_length_is_refused() -> None:
    """What another version logged is not taken for this one's."""
    with pytest.raises(ValueError, match="numbers"):
        unpack_context("AAAA")
    with pytest.raises(ValueError, match=r".+"):
        unpack_context("no base64!")
