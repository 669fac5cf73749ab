"""In which order processes start and stop. Pure."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from typing import Protocol


class Startable(Protocol):
    """What ordering looks at."""

    @property
    def name(self) -> str:
        """The unique name."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names that must be ready first."""

    @property
    def drain_rank(self) -> int:
        """Higher stops first."""


def start_waves(specs: Iterable[Startable]) -> list[list[str]]:
    """Group the names so that each wave needs only what earlier waves hold.

    Raises:
        ValueError: A name appears twice, a dependency is unknown, or there is a cycle.
    """
    known = _by_name(specs)
    missing = {need for spec in known.values() for need in spec.depends_on} - known.keys()
    if missing:
        raise ValueError(f"unknown dependencies: {', '.join(sorted(missing))}")
    sorter = TopologicalSorter({name: spec.depends_on for name, spec in known.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"processes wait for each other: {' -> '.join(error.args[1])}") from error
    waves = []
    while ready := sorted(sorter.get_ready()):
        waves.append(ready)
        sorter.done(*ready)
    return waves


def stop_waves(specs: Iterable[Startable]) -> list[list[str]]:
    """Group the names by falling drain rank: the first wave is stopped first."""
    ranked = sorted(specs, key=lambda spec: (-spec.drain_rank, spec.name))
    groups = groupby(ranked, key=lambda spec: spec.drain_rank)
    return [[spec.name for spec in group] for _, group in groups]


def _by_name(specs: Iterable[Startable]) -> dict[str, Startable]:
    known: dict[str, Startable] = {}
    for spec in specs:
        if spec.name in known:
            raise ValueError(f"two processes are named {spec.name}")
        known[spec.name] = spec
    return known
