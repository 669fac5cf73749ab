"""The model card: what a model does, what was measured, and where it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from penstock_models.evaluate import show

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = "<!-- measured: begin -->"
END = "<!-- measured: end -->"


def write_card(directory: Path, report: dict[str, Any]) -> None:
    """Replace the measured part of `README.md` in `directory` and write the figures beside it."""
    card = directory / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {directory.name}\n\n"
    if MEASURED not in text:
        text = f"{text.rstrip()}\n\n{MEASURED}\n{END}\n"
    before, rest = text.split(MEASURED, 1)
    after = rest.split(END, 1)[1]
    card.write_text(f"{before}{MEASURED}\n{measured(report)}\n{END}{after}", encoding="utf-8")
    figures = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (directory / "evaluation.json").write_text(figures, encoding="utf-8")


def measured(report: dict[str, Any]) -> str:
    """The measured part of a card, as Markdown."""
    lines = [
        f"Exact match in percent, int8, greedy, on {report['messages']} held-out messages",
        f"(seed {report['seed']}):",
        "",
        show(report["exact"]),
    ]
    if "tools" in report:
        tools = report["tools"]
        turns, whole = (f"{100 * tools[key]:.1f} %" for key in ("turns", "dialogues"))
        lines += [
            "",
            f"With tools, {tools['count']} held-out conversations: {turns} of the turns and",
            f"{whole} of the whole conversations are exact (each turn after the right turns before",
            "it).",
        ]
    return "\n".join(lines)
