"""A JSON Schema as a graph: which subschemas it has, where each sends the validator, at what cost.

One resource only: references stay within the schema, so `$dynamicRef` means what `$ref` means.
What leads back to itself in one place, or combines to too many cases there, is refused here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from penstock_shared.contracts.errors import PermanentError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_DEPTH: Final = 64
"""Of a schema, of an answer, and of the subschemas that apply in one place: native stack."""
MAX_VALUES: Final = 5_000
"""Values in a schema, keys included."""
MAX_CHARS: Final = 64 * 1024
MAX_PATTERNS: Final = 64
MAX_UNITS: Final = 200_000
"""Evaluations of a subschema (or as much work) that one check may take."""
_MAX_APPLIED: Final = 100_000
_REEVALUATED: Final = 4
"""How often `unevaluated…` makes a validator look at its neighbours again; measured: 2.6."""

_STATES_PER_UNIT: Final = 16
_USUAL_DIVISOR: Final = 1e12
_REPEATED: Final = re.compile(r"\{([0-9]*(?:,[0-9]*)?)\}")

_ONE: Final = ("not", "if", "then", "else")
_LISTED: Final = ("allOf", "anyOf", "oneOf")
_NAMED: Final = ("dependentSchemas", "dependencies")
_EVERY_VALUE: Final = ("additionalProperties", "unevaluatedProperties")
_EVERY_ITEM: Final = ("items", "contains", "unevaluatedItems")

Path = int
"""A subschema: its place in `SchemaGraph.nodes`."""


def invalid(why: str) -> PermanentError:
    """The refusal of what is no schema that we take; `why` must not quote it (I10)."""
    return PermanentError(
        f"The schema is none (JSON Schema, draft 2020-12) that can be used: {why}.",
        code="schema_invalid",
        param="output_schema",
    )


def too_complex(why: str) -> PermanentError:
    """The refusal of a schema that would take too long, or too much of the stack."""
    return PermanentError(
        f"The schema is too complex: {why}.", code="schema_too_complex", param="output_schema"
    )


@dataclass(slots=True)
class Node:
    """One subschema, and where it sends the validator."""

    units: int = 1
    units_per_char: int = 0
    units_per_name_char: int = 0
    units_per_value: int = 0
    """For each value anywhere below a list."""
    divides: bool = False
    again: int = 1
    here: list[Path] = field(default_factory=list)
    properties: dict[str, list[Path]] = field(default_factory=dict)
    patterned: list[Path] = field(default_factory=list)
    every_value: list[Path] = field(default_factory=list)
    names: list[Path] = field(default_factory=list)
    prefix: list[Path] = field(default_factory=list)
    every_item: list[Path] = field(default_factory=list)


class SchemaGraph:
    """The subschemas of one schema, each with all that applies in the same place."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Read a schema whose size was checked by `bounded`.

        Raises:
            PermanentError: code "schema_invalid" or "schema_too_complex".
        """
        _refuse_dialects(schema)
        self._root = schema
        self._anchors: dict[str, Any] = {}
        self.nodes: list[Node] = []
        self._paths: dict[int, Path] = {}
        self._unread: list[tuple[Path, dict[str, Any]]] = []
        self._references: list[tuple[Node, str]] = []
        self._patterns = 0
        self.has_branches = False
        """Whether a failure can have alternatives that must all be explained."""
        self._enter(schema)
        self._read_all()
        self.applied = self._close()
        """For each subschema: what applies in its place, and how often."""

    def _enter(self, schema: Any) -> list[Path]:
        """The path of a subschema, to be read later; none for `true` and `false`."""
        if isinstance(schema, bool):
            return []
        if not isinstance(schema, dict):
            raise invalid("a schema is an object, true or false")
        path = self._paths.get(id(schema))
        if path is None:
            path = self._paths[id(schema)] = len(self.nodes)
            self.nodes.append(Node())
            self._unread.append((path, schema))
        return [path]

    def _read_all(self) -> None:
        while self._unread or self._references:
            while self._unread:
                path, schema = self._unread.pop()
                self._read(self.nodes[path], schema)
            if self._references:  # only now every anchor is known
                node, reference = self._references.pop()
                node.here += self._enter(self._resolve(reference))

    def _read(self, node: Node, schema: dict[str, Any]) -> None:
        if "$id" in schema and schema is not self._root:
            raise invalid("'$id' is taken at its root only")
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(keyword), str):
                self._anchors[schema[keyword]] = schema
        for keyword in ("$ref", "$dynamicRef"):  # the same: there is one resource only
            if keyword in schema:
                self._references.append((node, schema[keyword]))
        self.has_branches |= "anyOf" in schema or "oneOf" in schema
        self._read_here(node, schema)
        self._read_below(node, schema)
        self._price(node, schema)

    def _read_here(self, node: Node, schema: dict[str, Any]) -> None:
        for keyword in _ONE:
            if keyword in schema:
                node.here += self._enter(schema[keyword])
        for keyword in _LISTED:
            for one in _list(schema, keyword):
                node.here += self._enter(one)
        for keyword in _NAMED:
            for one in _object(schema, keyword).values():
                if not isinstance(one, list):
                    node.here += self._enter(one)
        for keyword in ("$defs", "definitions"):  # not applied, but they may hold anchors
            for one in _object(schema, keyword).values():
                self._enter(one)

    def _read_below(self, node: Node, schema: dict[str, Any]) -> None:
        for name, one in _object(schema, "properties").items():
            node.properties[name] = self._enter(one)
        for pattern, one in _object(schema, "patternProperties").items():
            self._count_pattern()
            node.units_per_name_char += _pattern_units(pattern)
            node.patterned += self._enter(one) or self._enter(_ANYTHING)
        for one in _list(schema, "prefixItems"):
            node.prefix += self._enter(one) or self._enter(_ANYTHING)
        for keywords, paths in (
            (_EVERY_VALUE, node.every_value),
            (_EVERY_ITEM, node.every_item),
            (("propertyNames",), node.names),
        ):
            for keyword in keywords:
                if keyword in schema:
                    paths.extend(self._enter(schema[keyword]))

    def _price(self, node: Node, schema: dict[str, Any]) -> None:
        if "pattern" in schema:
            self._count_pattern()
            node.units_per_char = _pattern_units(schema["pattern"])
        if "multipleOf" in schema:
            _refuse_extremes(schema["multipleOf"])
            node.divides = True
        if schema.get("uniqueItems") is True:
            node.units_per_value = 8
        for keyword in ("enum", "const"):
            node.units += values_in(schema.get(keyword)) // 4
        node.units += len(_list(schema, "required")) // 4
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            node.again = _REEVALUATED

    def _count_pattern(self) -> None:
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise too_complex(f"more than {MAX_PATTERNS} patterns")

    def _resolve(self, reference: Any) -> Any:
        """What a reference within the schema points at (RFC 6901 or an anchor)."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise invalid("a reference must stay within it (begin with '#'); nothing is fetched")
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            if pointer not in self._anchors:
                raise invalid("a reference names an anchor that is not there")
            return self._anchors[pointer]
        target: Any = self._root
        for step in pointer.split("/")[1:]:
            target = _step(target, step.replace("~1", "/").replace("~0", "~"))
        return target

    def _close(self) -> list[Counter[Path]]:
        """For each subschema: what applies in its place, and how often."""
        closed: list[Counter[Path] | None] = [None] * len(self.nodes)
        room = _MAX_APPLIED

        def close(path: Path, above: int) -> Counter[Path]:
            nonlocal room
            if above > MAX_DEPTH:
                raise too_complex(
                    f"more than {MAX_DEPTH} schemas apply one inside another in one place, "
                    "or a reference leads back to itself"
                )
            done = closed[path]
            if done is not None:
                return done
            node, applied = self.nodes[path], Counter({path: 1})
            for other in node.here:
                for inner, often in close(other, above + 1).items():
                    applied[inner] += node.again * often
            room -= len(applied)
            if room < 0 or applied.total() > MAX_UNITS:
                raise too_complex("its parts combine to too many cases")
            closed[path] = applied
            return applied

        return [close(path, 0) for path in range(len(self.nodes))]


_ANYTHING: Final[dict[str, Any]] = {}


def bounded(value: Any, max_depth: int = MAX_DEPTH) -> bool:
    """Whether a value is small and shallow enough to be walked: without recursion itself."""
    level, values, chars = [value], 0, 0
    for _ in range(max_depth + 1):
        level = [inner for outer in level for inner in _inner(outer)]
        values += len(level)
        chars += sum(len(inner) for inner in level if isinstance(inner, str))
        if values > MAX_VALUES or chars > MAX_CHARS:
            return False
        if not level:
            return True
    return False


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _pattern_units(pattern: Any) -> int:
    """For each character of a text: a matcher keeps at most as many states as the pattern has."""
    if not isinstance(pattern, str):
        raise invalid("'pattern' must be a text")
    states = len(pattern)
    for bounds in _REPEATED.findall(pattern):
        states *= max(1, *(int(bound[:6]) for bound in bounds.split(",") if bound))
    return 1 + states // _STATES_PER_UNIT


def _refuse_extremes(divisor: Any) -> None:
    """Exact division by numbers of hundreds of digits takes a thousand times as long."""
    usual = not isinstance(divisor, (int, float)) or not divisor
    if not usual and not 1 / _USUAL_DIVISOR <= abs(divisor) <= _USUAL_DIVISOR:
        raise too_complex("'multipleOf' lies outside 1e-12 to 1e12")


def values_in(value: Any) -> int:
    """Values in a JSON value of bounded depth, itself included."""
    if isinstance(value, dict):
        return 1 + sum(map(values_in, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(values_in, value))
    return 1


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword, [])
    if not isinstance(value, list):
        raise invalid(f"'{keyword}' must be a list")
    return value


def _object(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise invalid(f"'{keyword}' must be an object")
    return value


def _step(target: Any, step: str) -> Any:
    if isinstance(target, dict) and step in target:
        return target[step]
    if isinstance(target, list) and step.isdecimal() and int(step) < len(target):
        return target[int(step)]
    raise invalid("a reference points at nothing")


def _refuse_dialects(schema: dict[str, Any]) -> None:
    if schema.get("$schema", DIALECT) not in (DIALECT, DIALECT + "#"):
        raise invalid(f"its '$schema' is another than {DIALECT}")
