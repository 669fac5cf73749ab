"""What the router's decisions are worth: on RouteLLM's outcomes, and on the reference models' own.

A small form of `python -m penstock_router.evaluate`. RouteLLM's prompts: the classifier is trained
on a random half and judged on the other; the bandit starts from nothing, answers every prompt once
and pays for its exploring, at exchange rates where there is something to learn. The reference
models' messages, all grades in equal
shares: every way to route has its knobs tuned on one half, to the best quality within the budget,
and is judged on the other; costs are measured processor time, failed attempts included. Once with
the time as a worker spends it, which hears of every token, and once with the engine's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness.reference_policies import (
    COST_AIM,
    QUALITY_AIM,
    Outcomes,
    Reached,
    compare,
)
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.domain.lexicon import Lexicon
from penstock_router.evaluate.offline import Interval, offline_over_splits
from penstock_router.evaluate.online import OnlineReport, judge_online, table_of
from penstock_router.evaluate.outcomes import Outcomes as Rows
from penstock_router.evaluate.outcomes import features_of_prompts, read_outcomes

ROUTELLM: Final = Path(__file__).parents[2] / "shared/data/routellm/outcomes.jsonl.gz"
PLANS: Final = "plans"
TIMES: Final = {"cpu_us": "as a worker runs them", "engine_cpu_us": "the engine alone"}
_SPLITS: Final = 3
_COLUMNS: Final = (
    *("quality", "quality_low", "quality_high", "cost", "cost_low", "cost_high"),
    *("large_first", "escalated"),
)
_AIMS: Final = (
    ("mmlu.apgr", 0.70, "APGR on MMLU prompts"),
    ("gsm8k.apgr", 0.63, "APGR on GSM8K prompts"),
)
RATES: Final = (1.5, 2.0, 3.0, 5.0)
"""What a wrong answer costs, in units of how much a strong one costs more."""
_CPT50_AIM: Final = 0.28
_ECE_AIM: Final = 0.03


def run(options: Options) -> Report:
    """Both parts; RouteLLM's only where the data lie beside the repository."""
    splits = options.rounds or (1 if options.quick else _SPLITS)
    lexicon = load_lexicon()
    reached = {cost: _reference(lexicon, cost, splits) for cost in TIMES}
    grids = [_ways(TIMES[cost], ways, splits) for cost, ways in reached.items()]
    figures: dict[str, Any] = {
        f"reference_{cost}": {name: _figures(found) for name, found in ways.items()}
        for cost, ways in reached.items()
    }
    aims = [_aim(cost, ways[PLANS]) for cost, ways in reached.items()]
    if ROUTELLM.exists():
        rows = read_outcomes(ROUTELLM)
        measures = offline_over_splits(rows, splits, lexicon, lambda _: None).measures
        online = _bandit(rows, lexicon, splits)
        grids += [_measured(measures, splits), _bandits(online, splits)]
        figures["routellm"] = {name: found.mean for name, found in measures.items()}
        figures["bandit"] = [asdict(each) for each in online]
        aims += [*_classifier_aims(measures), _bandit_aim(online)]
    return Report(name="router_quality", grids=grids, figures=figures, aims=aims)


def _reference(lexicon: Lexicon, cost: str, splits: int) -> Mapping[str, Sequence[Reached]]:
    seen = Outcomes.read(lexicon, cost=cost)
    found = [compare(seen, seed) for seed in range(splits)]
    return {name: [each[name] for each in found] for name in found[0]}


def _bandit(rows: Rows, lexicon: Lexicon, orders: int) -> Sequence[OnlineReport]:
    return judge_online(
        table_of(rows, features_of_prompts(rows, lexicon)), seeds=orders, rates=RATES
    )


def _bandits(online: Sequence[OnlineReport], orders: int) -> Grid:
    return Grid(
        f"RouteLLM's outcomes, the bandit from nothing; cost and penalty, {orders} orders",
        ("error costs", "bandit", "best of four", "oracle", "gain", "orders won"),
        tuple(
            (
                f"{each.rate:g} strong answers",
                f"{each.bandit:.2f}",
                f"{min(*each.always, each.random, each.best_single):.2f}",
                f"{each.oracle:.2f}",
                f"{each.gain:.1%}",
                f"{each.orders_won:.0%}",
            )
            for each in online
        ),
    )


def _bandit_aim(online: Sequence[OnlineReport]) -> Aim:
    worst = min(each.gain for each in online)
    text = "the bandit beats always cheap, always strong, random and best single at every rate"
    return Aim(text, f"by {worst:.1%} at least", worst > 0)


def _figures(found: Sequence[Reached]) -> dict[str, float]:
    """Means over the splits; the intervals' ends are means, too."""
    rows = [
        (
            *(one.quality, *one.quality_interval),
            *(one.cost, *one.cost_interval),
            *(one.strong_first, one.escalated),
        )
        for one in found
    ]
    return dict(zip(_COLUMNS, np.mean(rows, axis=0).tolist(), strict=True))


def _ways(time: str, ways: Mapping[str, Sequence[Reached]], splits: int) -> Grid:
    rows = []
    for name, found in ways.items():
        row = _figures(found)
        rows.append(
            (
                name,
                f"{row['quality']:.1%} ({row['quality_low']:.1%}-{row['quality_high']:.1%})",
                f"{row['cost']:.1%} ({row['cost_low']:.1%}-{row['cost_high']:.1%})",
                f"{row['large_first']:.1%}",
                f"{row['escalated']:.1%}",
            )
        )
    title = f"Reference tasks against always large, {time}; halves: {splits}, 95 % intervals of one"
    return Grid(title, ("", "quality", "cost", "large first", "escalated"), tuple(rows))


def _measured(measures: Mapping[str, Interval], splits: int) -> Grid:
    return Grid(
        f"RouteLLM's outcomes, the classifier on halves it was not trained on ({splits})",
        ("", "mean", "95 % interval"),
        tuple(
            (name, f"{found.mean:.3f}", f"{found.low:.3f}-{found.high:.3f}")
            for name, found in measures.items()
        ),
    )


def _aim(cost: str, found: Sequence[Reached]) -> Aim:
    row = _figures(found)
    return Aim(
        f"plans: {QUALITY_AIM:.0%} of the large model's quality at {COST_AIM:.0%} of its cost, "
        f"{TIMES[cost]}",
        f"{row['quality']:.1%} at {row['cost']:.1%}",
        row["quality"] >= QUALITY_AIM and row["cost"] <= COST_AIM,
    )


def _classifier_aims(measures: Mapping[str, Interval]) -> list[Aim]:
    means = {name: found.mean for name, found in measures.items()}
    aims = [
        Aim(f"{what} at least {least:.2f}", f"{means[name]:.3f}", means[name] >= least)
        for name, least, what in _AIMS
    ]
    cpt50 = means["mmlu.cpt50"]
    worst = max(mean for name, mean in means.items() if name.endswith("ece_after"))
    return [
        *aims,
        Aim(f"CPT(50) on MMLU at most {_CPT50_AIM:.0%}", f"{cpt50:.1%}", cpt50 <= _CPT50_AIM),
        Aim(f"calibration error at most {_ECE_AIM}", f"{worst:.3f}", worst <= _ECE_AIM),
    ]
