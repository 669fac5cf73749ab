"""What checking an answer against a schema would cost, counted before anybody does it.

A validator evaluates subschemas without remembering what it has done, so a schema of a hundred
lines can ask for 2**64 evaluations (`anyOf` of twice the same reference, 64 levels deep; nested
`unevaluatedProperties`; recursion that reaches a place by two paths). Nobody can interrupt native
code, therefore this module counts: for every place in the answer, which subschemas apply there
and how often. The count goes from the root downwards, so it needs no recursion and stops as soon
as it is over the limit.

It must not undercount; it may overcount (a validator stops at the first failure, this does not).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from penstock_worker.domain.schema_graph import MAX_UNITS, Path, SchemaGraph, values_in

_MEMBERS_PER_UNIT: Final = 4
"""Even where a keyword lets everything pass, somebody walks over the members."""
_EXACT_ABOVE: Final = 1e15
_EXACT_UNITS: Final = 400  # dividing 1.7e308 by 0.01 exactly took 14 microseconds


class SchemaWork:
    """Counts for one schema and any answer."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Read a schema that is `bounded`.

        Raises:
            PermanentError: code "schema_invalid" or "schema_too_complex".
        """
        graph = SchemaGraph(schema)
        self._nodes = graph.nodes
        self._applied = graph.applied
        self.has_branches = graph.has_branches
        """Whether a failure can have alternatives that must all be explained."""

    def count(self, answer: Any) -> int:
        """Units that a check of `answer` takes; above `MAX_UNITS` the count stops."""
        total = 0
        places: list[tuple[Any, Counter[Path]]] = [(answer, Counter({0: 1}))]
        while places and total <= MAX_UNITS:
            value, entered = places.pop()
            applied = self._applied_by(entered)
            total += sum(times * self._cost(path, value) for path, times in applied.items())
            if total <= MAX_UNITS and isinstance(value, (dict, list)):
                places.extend(self._below(value, applied))
        return total

    def _applied_by(self, entered: Counter[Path]) -> Counter[Path]:
        applied: Counter[Path] = Counter()
        for path, times in entered.items():
            for other, often in self._applied[path].items():
                applied[other] += times * often
        return applied

    def _cost(self, path: Path, value: Any) -> int:
        """What one evaluation costs in this place; below it is counted on its own."""
        node = self._nodes[path]
        if isinstance(value, str):
            return node.units + node.units_per_char * len(value)
        if isinstance(value, dict):
            members = len(value) // _MEMBERS_PER_UNIT
            named = node.units_per_name_char and sum(map(len, value)) + len(value)
            return node.units + members + node.units_per_name_char * named
        if isinstance(value, list):
            members = len(value) // _MEMBERS_PER_UNIT
            within = node.units_per_value and values_in(value)
            return node.units + members + node.units_per_value * within
        if node.divides and isinstance(value, (int, float)):
            return node.units + (_EXACT_UNITS if abs(value) > _EXACT_ABOVE else 4)
        return node.units

    def _below(
        self, value: dict[str, Any] | list[Any], applied: Counter[Path]
    ) -> Iterator[tuple[Any, Counter[Path]]]:
        nodes = [(self._nodes[path], times) for path, times in applied.items()]
        if isinstance(value, list):
            for position, item in enumerate(value):
                yield (
                    item,
                    _entered((node.every_item, times) for node, times in nodes)
                    + _entered(
                        (node.prefix[position : position + 1], times) for node, times in nodes
                    ),
                )
            return
        for name, child in value.items():
            yield (
                child,
                _entered(
                    (
                        [*node.properties.get(name, ()), *node.patterned, *node.every_value],
                        times,
                    )
                    for node, times in nodes
                ),
            )
            yield name, _entered((node.names, times) for node, times in nodes)


def _entered(nodes: Iterator[tuple[list[Path], int]]) -> Counter[Path]:
    entered: Counter[Path] = Counter()
    for paths, times in nodes:
        for path in paths:
            entered[path] += times
    return entered
