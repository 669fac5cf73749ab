"""Laws of checking answers: agreement with the reference implementation, and no crash."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.adapters.json_schema import RustAnswerSchema
from penstock_worker.domain.flaw import confidence

LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=12,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "string", "array", "object"])


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "maxLength": st.integers(0, 3),
            "minimum": st.integers(-5, 5),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "uniqueItems": st.booleans(),
            "maxItems": st.integers(0, 3),
        },
    )


SCHEMAS = st.recursive(st.booleans(), _wider, max_leaves=8).filter(
    lambda schema: isinstance(schema, dict)
)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, VALUES)
def test_agrees_with_the_reference_implementation(schema: dict[str, Any], value: Any) -> None:
    """An answer passes exactly where the `jsonschema` package lets it pass."""
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    failure = RustAnswerSchema(schema).check(json.dumps(value))
    assert (failure is None) == expected, failure


def _exact(value: Any) -> dict[str, Any]:
    """A schema that this value satisfies, and no value with another shape or type."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {name: _exact(inner) for name, inner in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        exact = {"type": "array", "minItems": len(value), "maxItems": len(value)}
        return exact | ({"prefixItems": [_exact(inner) for inner in value]} if value else {})
    return {"const": value}


@settings(max_examples=100, deadline=None)
@given(VALUES, VALUES)
def test_the_value_passes_and_any_other_fails(value: Any, other: Any) -> None:
    """What a schema describes passes; whatever differs from it fails."""
    schema = RustAnswerSchema(_exact(value))
    assert schema.check(json.dumps(value)) is None
    same = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (schema.check(json.dumps(other)) is None) == same


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text('[]{}",:\\u0123456789eE+- ', max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    """Any text gets a verdict; it passes the empty schema only as the one JSON value it is."""
    if RustAnswerSchema({}).check(text) is None:
        json.loads(text)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["$ref", "$id", "allOf", "items", "pattern", "properties", "enum", "not", "type",
             "$dynamicRef", "$anchor", "minContains", "contains", "dependencies", "if"]
        ),
        VALUES | st.just("#") | st.just([{"$ref": "#"}]) | st.just({"$ref": "#"}),
    )
)  # fmt: skip
def test_any_object_is_compiled_or_refused(schema: dict[str, Any]) -> None:
    """Whatever a client calls a schema: a compiled one or a permanent error, nothing else."""
    with contextlib.suppress(PermanentError):
        RustAnswerSchema(schema).check("[{}, 1]")


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
def test_confidence_lies_between_the_least_and_the_most_sure_token(chances: list[float]) -> None:
    """A mean: within its terms' range."""
    measured = confidence(sum(map(math.log, chances)), len(chances))
    assert measured is not None
    assert min(chances) * (1 - 1e-9) <= measured <= max(chances) * (1 + 1e-9)
