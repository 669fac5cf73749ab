"""The report as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def table(report: Mapping[str, Any]) -> str:
    """Aligned columns, no colours: it also goes into files."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    offline = report["offline"]
    yield (
        f"Offline: trained on {offline['trained_on']}, judged on {offline['judged_on']} prompts"
        f" (splits: {offline['splits']})"
    )
    yield f"{'':36}{'mean':>9}{'95 %':>19}"
    for name, value in offline["measures"].items():
        between = f"{value['low']:.3f} to {value['high']:.3f}"
        yield f"  {name:34}{value['mean']:9.3f}{between:>19}"
    yield f"{'':36}{'accuracy':>9}{'cost':>19}"
    for name, policy in offline["policies"].items():
        yield f"  {name:34}{policy['accuracy']:9.3f}{policy['cost']:19.4g}"
    decided = offline["decision_us"]
    yield f"Decision, 500 tokens: p50 {decided['p50']:.0f} us, p99 {decided['p99']:.0f} us"
