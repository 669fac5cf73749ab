"""How good a ranking of prompts is for routing between a weak and a strong model.

As RouteLLM defines and computes them (Ong et al. 2024, https://arxiv.org/abs/2406.18665, section
2.2; `routellm/evals/evaluate.py`): the ten deciles of the scores are thresholds, each gives a share
of calls to the strong model and an accuracy. APGR is the area under that curve above the weak
model's accuracy, relative to the area under the strong model's; CPT(x) is the share of calls to the
strong model at which x of the gap between the two is recovered.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]

_THRESHOLDS: Final = 10
ECE_BINS: Final = 15


def routing_curve(uplift: Numbers, weak: Numbers, strong: Numbers) -> tuple[Numbers, Numbers]:
    """Shares of calls to the strong model, rising, and the accuracy at each."""
    cuts = np.quantile(uplift, np.linspace(0, 1, _THRESHOLDS + 1))
    chosen = [uplift >= cut for cut in cuts[:-1]] + [uplift > cuts[-1]]
    shares = np.array([each.mean() for each in chosen])
    accuracies = np.array([np.where(each, strong, weak).mean() for each in chosen])
    return shares[::-1], accuracies[::-1]


def apgr(uplift: Numbers, weak: Numbers, strong: Numbers) -> float:
    """Average performance gap recovered; 0.5 is what random routing gives. NaN without a gap."""
    shares, accuracies = routing_curve(uplift, weak, strong)
    low, high = float(weak.mean()), float(strong.mean())
    span = float(shares[-1] - shares[0])
    if high == low or span == 0:
        return float("nan")
    return float((np.trapezoid(accuracies, shares) - low * span) / ((high - low) * span))


def call_performance_threshold(
    uplift: Numbers, weak: Numbers, strong: Numbers, recovered: float
) -> float:
    """CPT: the least share of calls to the strong model that recovers so much of the gap."""
    shares, accuracies = routing_curve(uplift, weak, strong)
    aim = float(weak.mean() + recovered * (strong.mean() - weak.mean()))
    reached = int(np.argmax(accuracies >= aim))
    if accuracies[reached] < aim:
        return 1.0
    if reached == 0:
        return float(shares[0])
    around = slice(reached - 1, reached + 1)
    return float(np.interp(aim, accuracies[around], shares[around]))


def calibration_error(p: Numbers, right: Numbers, bins: int = ECE_BINS) -> float:
    """Expected calibration error in bins of equal mass."""
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, bins)
    gaps = [len(part) * abs(p[part].mean() - right[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(p))
