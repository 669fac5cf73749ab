"""What a benchmark found: a table for people, one line of JSON for programs, a record for git."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.machine import describe_machine

RESULTS = Path(__file__).parents[1] / "RESULTS.md"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    quick: bool
    """Seconds instead of minutes: shows that everything runs, and little more."""
    rounds: int | None = None
    """How often everything is measured in turn; None: as often as the benchmark's plan says."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One table; cells are text already."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """What the project set out to reach, and what was measured."""

    text: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one benchmark."""

    name: str
    grids: Sequence[Grid]
    figures: dict[str, Any]
    aims: Sequence[Aim] = field(default=())
    versions: dict[str, str] = field(default_factory=dict)

    def print(self, console: Console) -> None:
        """Show the tables and the aims."""
        for grid in self.grids:
            table = Table(title=grid.title)
            for number, column in enumerate(grid.columns):
                table.add_column(column, justify="right" if number else "left")
            for row in grid.rows:
                table.add_row(*row)
            console.print(table)
        for aim in self.aims:
            mark = "[green]reached[/green]" if aim.met else "[red]missed[/red]"
            console.print(f"{mark}: {aim.text}: {aim.measured}", soft_wrap=True)

    def json_line(self) -> str:
        """All figures in one line."""
        return json.dumps(
            {
                "benchmark": self.name,
                "machine": describe_machine(),
                "versions": self.versions,
                "figures": self.figures,
                "aims": [{"aim": a.text, "measured": a.measured, "met": a.met} for a in self.aims],
            }
        )

    def record(self, command: str) -> None:
        """Append to RESULTS.md."""
        lines = [f"\n## {self.name}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n", f"`{command}`\n"]
        facts = describe_machine() | self.versions
        lines.append("; ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
        for grid in self.grids:
            lines += [f"**{grid.title}**\n", _row(grid.columns)]
            lines.append(_row(("---", *("--:" for _ in grid.columns[1:]))))
            lines += [_row(row) for row in grid.rows]
            lines.append("")
        lines += [
            f"- {'Reached' if a.met else '**Missed**'}: {a.text}: {a.measured}" for a in self.aims
        ]
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write("\n".join(lines) + "\n")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
