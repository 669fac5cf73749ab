"""The report as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(report: Mapping[str, Any]) -> str:
    """Aligned columns, no colours: it also goes into files."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    if "offline" in report:
        yield from _offline(report["offline"])
    if "online" in report:
        yield from _online(report["online"])


def _offline(offline: Mapping[str, Any]) -> Iterator[str]:
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


def _online(rates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "Online, from nothing: mean cost and penalty of a prompt"
    heads = ("cheap", "strong", "random", "oracle", "bandit", "gain", "explored")
    yield f"  {'rate':>6}" + "".join(f"{head:>10}" for head in heads)
    for rate in rates:
        totals = (*rate["always"], rate["random"], rate["oracle"], rate["bandit"])
        shares = f"{rate['gain']:10.1%}{rate['explored']:10.1%}"
        yield f"  {rate['rate']:6g}" + "".join(f"{total:10.1f}" for total in totals) + shares
