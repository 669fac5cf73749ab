"""Compiles JSON Schemas and checks answers, in native code that nobody can interrupt.

jsonschema-rs matches patterns in linear time (Rust's regex: no look-around, no back-references)
and fetches nothing when `offline`. What it does not do is bound its work or its stack, so nothing
reaches it before the domain (`schema_graph.py`, `schema_work.py`) has counted what it would cost.
It holds the GIL meanwhile; parsing and counting yield it every few milliseconds, hence the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import jsonschema_rs

from penstock_worker.domain.schema_graph import (
    MAX_DEPTH,
    MAX_UNITS,
    bounded,
    invalid,
    too_complex,
)
from penstock_worker.domain.schema_work import SchemaWork
from penstock_worker.ports import SchemaFailure

MAX_ANSWER_CHARS: Final = 1024 * 1024
MAX_DETAIL_CHARS: Final = 500
_REGEX: Final = jsonschema_rs.RegexOptions(size_limit=128 * 1024, dfa_size_limit=1024 * 1024)
_MAX_DIGITS: Final = 309  # as a float's largest: arithmetic on longer ones is slow
_EXPLAINED_UNITS: Final = 2_000
_EXPLAINED_CHARS: Final = 4_000_000  # units times characters: alternatives each copy the answer
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_KEYWORDS: Final = frozenset(
    re.findall(
        r"\S+",
        """
        $ref $dynamicRef $id $anchor $dynamicAnchor $schema $defs $vocabulary $comment
        type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum
        maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains
        maxProperties minProperties required dependentRequired dependentSchemas dependencies
        definitions prefixItems items contains properties patternProperties
        additionalProperties propertyNames unevaluatedItems unevaluatedProperties
        allOf anyOf oneOf not if then else format
        """,
    )
)


class RustAnswerSchema:
    """One compiled schema; may be used by several threads at once."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile a schema.

        Raises:
            PermanentError: code "schema_invalid" or "schema_too_complex".
        """
        if not bounded(schema):
            raise too_complex("it is too large or nested too deeply")
        _plain(schema)
        self._work = SchemaWork(schema)
        try:
            with _panics_refused():
                self._validator = jsonschema_rs.Draft202012Validator(
                    schema, pattern_options=_REGEX, offline=True, validate_formats=False
                )
        except ValueError as error:  # jsonschema-rs raises subclasses of it, and itself
            raise invalid(_what_is_wrong(error)) from error
        except jsonschema_rs.ReferencingError as error:
            raise invalid("a reference cannot be resolved") from error

    def check(self, text: str) -> SchemaFailure | None:
        """What is wrong with an answer; None when it satisfies the schema.

        Raises:
            PermanentError: the native code gave up on this schema.
        """
        try:
            answer = parsed(text)
        except ValueError as error:
            return SchemaFailure("json", str(error)[:MAX_DETAIL_CHARS])
        units = self._work.count(answer)
        if units > MAX_UNITS:
            return SchemaFailure("schema", "The answer would take too long to check.")
        with _panics_refused():
            if self._validator.is_valid(answer):
                return None
            return self._explained(answer, units, len(text))

    def satisfied_by(self, text: str) -> bool:
        """Whether an answer satisfies the schema, as far as that can be found out.

        Raises:
            PermanentError: the native code gave up on this schema.
        """
        try:
            answer = parsed(text)
        except ValueError:
            return False
        with _panics_refused():
            return self._work.count(answer) <= MAX_UNITS and self._validator.is_valid(answer)

    def _explained(self, answer: Any, units: int, chars: int) -> SchemaFailure:
        costly = units > _EXPLAINED_UNITS or units * chars > _EXPLAINED_CHARS
        if self._work.has_branches and costly:
            return SchemaFailure("schema", "The answer does not satisfy it; too large to say why.")
        try:
            self._validator.validate(answer)
        except jsonschema_rs.ValidationError as error:
            where = "/".join(str(step) for step in error.instance_path)
            detail = f"At '/{where}': {error.message}"
            return SchemaFailure(_keyword(error), detail[:MAX_DETAIL_CHARS])
        return SchemaFailure("schema", "The answer does not satisfy it.")


class CachedAnswerSchemas:
    """Keeps compiled schemas, the least recently used go first.

    A tenant finds its own only: were they shared, the time to compile would tell whether
    somebody else uses the same schema (I8).
    """

    def __init__(self, room: int = 128) -> None:
        self._room = room
        self._kept: OrderedDict[tuple[str, bytes], RustAnswerSchema] = OrderedDict()

    async def compile(self, tenant: str, schema: dict[str, Any]) -> RustAnswerSchema:
        """The compiled form of a tenant's schema.

        Raises:
            PermanentError: code "schema_invalid" or "schema_too_complex".
        """
        if not bounded(schema):
            raise too_complex("it is too large or nested too deeply")
        key = tenant, hashlib.sha256(_plain(schema)).digest()
        kept = self._kept.get(key)
        if kept is None:
            kept = await asyncio.to_thread(RustAnswerSchema, schema)
            self._kept[key] = kept
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        if key in self._kept:  # it may have gone while another one was compiled
            self._kept.move_to_end(key)
        return kept


@contextlib.contextmanager
def _panics_refused() -> Iterator[None]:
    """A bug in the native code arrives as a BaseException that no handler would catch."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3 gives it no importable name
            raise
        raise invalid("it cannot be processed") from error


def parsed(text: str) -> Any:
    """The one JSON value (RFC 8259) that `text` is, with nothing around it.

    Raises:
        ValueError: it is none, or one that readers disagree about: a repeated name, a number
            beyond a double's range, half a surrogate pair; or it is nested too deeply.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise ValueError("The answer is too long to check.")
    if _depth(text) > MAX_DEPTH:
        raise ValueError("The answer is nested too deeply.")
    answer = json.loads(
        text,
        object_pairs_hook=_without_repetition,
        parse_constant=_refuse_number,
        parse_float=_finite,
        parse_int=_integer,
    )
    if "\\u" in text or not text.isascii():
        json.dumps(answer, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return answer


def _depth(text: str) -> int:
    """The deepest nesting, found without recursion."""
    deepest = depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in ("]", "}"):
            depth -= 1
    return deepest


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("A name is used twice in one object.")
    return named


def _refuse_number(literal: str) -> float:
    raise ValueError(f"{literal[:20]} is no number in JSON, or too large for one.")


def _finite(literal: str) -> float:
    number = float(literal)
    return number if abs(number) != float("inf") else _refuse_number(literal)


def _integer(literal: str) -> int:
    if len(literal) > _MAX_DIGITS:
        _refuse_number(literal)
    return int(literal)


def _plain(schema: dict[str, Any]) -> bytes:
    """The schema as one canonical JSON text.

    Raises:
        PermanentError: it holds what JSON cannot: an infinite number, half a surrogate pair.
    """
    try:
        return json.dumps(schema, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise invalid("it holds a number or a character that JSON cannot") from error


def _keyword(error: jsonschema_rs.ValidationError) -> str:
    """The last keyword on the way to the failure, which is the broken one."""
    for step in reversed(error.schema_path):
        if step in _KEYWORDS:
            return str(step)
    return "schema"


def _what_is_wrong(error: ValueError) -> str:
    """Which keyword to look at: nothing else of a schema may be told in the clear (I10)."""
    path = getattr(error, "instance_path", [])
    keyword = next((str(step) for step in reversed(path) if step in _KEYWORDS), None)
    if keyword in ("pattern", "patternProperties"):
        return (
            f"look at '{keyword}' (a regular expression must not be large, "
            "nor use look-around or back-references)"
        )
    return f"look at '{keyword}'" if keyword else "it cannot be compiled"
