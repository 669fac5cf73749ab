"""Schemas and answers, friendly and hostile: a verdict or a refusal, and never a crash."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.adapters.json_schema import CachedAnswerSchemas, RustAnswerSchema
from penstock_worker.domain.schema_graph import MAX_DEPTH, MAX_UNITS
from penstock_worker.domain.schema_work import SchemaWork

ORDER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


def _twice(keyword: str, levels: int) -> dict[str, Any]:
    """Two references to the next level on each: 2**levels evaluations in one place."""
    defs: dict[str, Any] = {
        f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def _unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


@pytest.mark.parametrize(
    ("answer", "keyword"),
    [
        ('{"name": "Ada", "lines": [{"n": 2}]}', None),
        ('\n {"name": "Ada"} \n', None),
        ('{"name": "A"}', "minLength"),
        ('{"lines": []}', "required"),
        ('{"name": "Ada", "x": 1}', "additionalProperties"),
        ('{"name": "Ada", "lines": [{"n": "2"}]}', "type"),
        ("[]", "type"),
    ],
)
def test_an_answer_meets_its_schema_or_breaks_a_keyword(answer: str, keyword: str | None) -> None:
    """The broken keyword is named; it is a word of JSON Schema's, so no content (I10)."""
    failure = RustAnswerSchema(ORDER).check(answer)
    assert (failure and failure.keyword) == keyword


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sure! {}",
        "{} Hope that helps.",
        "```json\n{}\n```",
        "\ufeff{}",
        '{"a": 1, "a": 2}',
        "NaN",
        "-Infinity",
        "1e400",
        "9" * 400,
        "9" * 100_000,
        '"\\ud800"',
        '{"\\udfff": 1}',
        '"\ud800"',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 65 + "1" + "}" * 65,
        '"' + "\\" * 100_001,
        '"' + '\\"' * 100_000,
        "{'a': 1}",
        " " * 1_048_577,
    ],
)
def test_what_is_not_one_plain_json_value_fails_as_json(answer: str) -> None:
    """Text around it, repeated names, no numbers, half characters, 100,000 levels: no crash."""
    failure = RustAnswerSchema({}).check(answer)
    assert failure is not None
    assert failure.keyword == "json"
    assert len(failure.detail) <= 500


def test_brackets_in_texts_do_not_count_as_depth() -> None:
    """An answer may hold any number of them in a string."""
    assert RustAnswerSchema({}).check(json.dumps({"a": '[{"' * 1000})) is None


def test_the_deepest_answer_is_checked_in_a_small_stack() -> None:
    """As many subschemas in one place as are taken, at every one of the deepest levels."""
    defs: dict[str, Any] = {
        f"d{level}": {"not": {"not": {"$ref": f"#/$defs/d{level + 1}"}}} for level in range(20)
    }
    defs["d20"] = {"items": {"$ref": "#/$defs/d0"}}
    schema = RustAnswerSchema({"$ref": "#/$defs/d0", "$defs": defs})
    assert schema.check("[" * MAX_DEPTH + "]" * MAX_DEPTH) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"properties": []},
        {"items": [{}]},
        {"allOf": {}},
        {"allOf": [3]},
        {"minimum": float("nan")},
        {"maximum": float("inf")},
        {"const": "\ud800"},
        {"pattern": "("},
        {"pattern": 3},
        {"pattern": "(a+)\\1"},
        {"pattern": "(?=a)b"},
        {"pattern": "((a{1,1000}){1,1000}){1,1000}"},
        {"patternProperties": {"(": {}}},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#nowhere"},
        {"$dynamicRef": "http://127.0.0.1:9/x#a"},
        {"$ref": 3},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$schema": "http://127.0.0.1:9/x"},
        {"properties": {"a": {"$id": "http://127.0.0.1:9/x"}}},
        {"$ref": "#/enum/0", "enum": [{"type": 1}]},
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    """Permanent, with the parameter's name; nothing is ever fetched."""
    with pytest.raises(PermanentError) as caught:
        RustAnswerSchema(schema)
    assert (caught.value.code, caught.value.param) == ("schema_invalid", "output_schema")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": ""},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"$dynamicAnchor": "a", "not": {"$dynamicRef": "#a"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        _nested(100_000),
        _nested(MAX_DEPTH + 1),
        _twice("anyOf", 64),
        _twice("allOf", 20),
        _unevaluated(20),
        {"enum": list(range(6_000))},
        {"enum": ["x" * 70_000]},
        {"allOf": [{"pattern": "a"} for _ in range(65)]},
        {"multipleOf": 1e-300},
    ],
    ids=range(14),
)
def test_a_hostile_schema_is_refused_before_native_code_sees_it(schema: dict[str, Any]) -> None:
    """Loops, depth, size and doubling are told from the schema alone."""
    with pytest.raises(PermanentError) as caught:
        RustAnswerSchema(schema)
    assert caught.value.code in ("schema_too_complex", "schema_invalid")


def test_a_refusal_quotes_nothing_of_the_schema() -> None:
    """I10: the message lands unsealed in the terminal fact; a schema is content."""
    with pytest.raises(PermanentError) as caught:
        RustAnswerSchema({"properties": {"Ada": {"type": "Lovelace"}}})
    assert "'type'" in caught.value.message
    assert not {"Ada", "Lovelace"} & set(caught.value.message.replace("'", " ").split())


def test_a_catastrophic_pattern_is_matched() -> None:
    """`(a+)+$` backtracks for 2**n steps elsewhere; here it is linear."""
    failure = RustAnswerSchema({"pattern": "(a+)+$"}).check(json.dumps("a" * 50_000 + "!"))
    assert failure is not None
    assert failure.keyword == "pattern"


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "[" * 60 + "]" * 60),
        ({"pattern": "(?:a|b)*a(?:a|b){100}[cd]"}, json.dumps("ab" * 50_000)),
        ({"items": {"multipleOf": 0.01}}, json.dumps([1.7e308] * 10_000)),
        (
            {"allOf": [{"contains": False, "minContains": 0} for _ in range(600)]},
            json.dumps([0] * 20_000),
        ),
        (
            {
                "anyOf": [{"properties": {f"q{n}": True}} for n in range(600)],
                "unevaluatedProperties": True,
            },
            json.dumps({f"p{n}": 1 for n in range(10_000)}),
        ),
    ],
)
def test_an_answer_that_would_take_too_long_fails_unchecked(
    schema: dict[str, Any], answer: str
) -> None:
    """Recursion by two paths, many states, exact arithmetic, many members walked many times."""
    assert SchemaWork(schema).count(json.loads(answer)) > MAX_UNITS
    failure = RustAnswerSchema(schema).check(answer)
    assert failure is not None
    assert failure.keyword == "schema"


def test_recursion_through_the_answer_is_taken() -> None:
    """A tree, by `$ref` and by `$dynamicRef`."""
    for reference in ({"$ref": "#"}, {"$dynamicRef": "#node"}):
        schema = RustAnswerSchema(
            {
                "$dynamicAnchor": "node",
                "properties": {"next": reference, "n": {"type": "integer"}},
                "required": ["n"],
            }
        )
        assert schema.check('{"n": 1, "next": {"n": 2, "next": {"n": 3}}}') is None
        failure = schema.check('{"n": 1, "next": {"n": 2, "next": {}}}')
        assert failure is not None
        assert failure.keyword == "required"


async def test_compiled_schemas_are_kept_per_tenant() -> None:
    """I8: one tenant's compiling makes nothing faster for another; the oldest goes first."""
    schemas = CachedAnswerSchemas(room=2)
    mine = await schemas.compile("acme", {"type": "object"})
    assert await schemas.compile("acme", {"type": "object"}) is mine
    theirs = await schemas.compile("globex", {"type": "object"})
    assert theirs is not mine
    await schemas.compile("acme", {"type": "string"})
    assert await schemas.compile("globex", {"type": "object"}) is theirs
    assert await schemas.compile("acme", {"type": "object"}) is not mine


async def test_one_compiled_schema_serves_several_threads() -> None:
    """Checks run in threads side by side."""
    schema = RustAnswerSchema(ORDER)
    checks = [asyncio.to_thread(schema.check, '{"name": "Ada"}') for _ in range(20)]
    assert await asyncio.gather(*checks) == [None] * 20


def test_a_panic_of_the_native_code_is_a_permanent_error() -> None:
    """It comes as a BaseException, which would pass every handler and end the worker's task."""

    class PanicException(BaseException):
        pass

    class Panicking:
        def is_valid(self, _: Any) -> bool:
            raise PanicException

    schema = RustAnswerSchema({})
    schema._validator = Panicking()  # type: ignore[assignment]
    with pytest.raises(PermanentError) as caught:
        schema.check("1")
    assert caught.value.code == "schema_invalid"
