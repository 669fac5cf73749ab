"""`python -m penstock_router.evaluate`: what the router's decisions are worth, on outcomes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.evaluate.offline import offline, offline_over_splits
from penstock_router.evaluate.online import judge_online, table_of
from penstock_router.evaluate.outcomes import features_of_prompts, read_outcomes
from penstock_router.evaluate.table import table
from penstock_shared.contracts.errors import PermanentError

_EXAMPLES: Final = """examples:
  python -m penstock_router.evaluate --train half.jsonl.gz --test other.jsonl.gz --json
  python -m penstock_router.evaluate --train outcomes.jsonl.gz --splits 20
  python -m penstock_router.evaluate --train models/outcomes/reference.jsonl.gz --splits 5

A file has one JSON object per line: prompt, domain (for the report only), weak, strong (whether
each model answered correctly); with weak_run.cpu_us and strong_run.cpu_us costs are measured ones.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, judge, print; 2 when a file is missing or malformed."""
    asked = _parser().parse_args(arguments)
    try:
        report = _report(asked)
    except PermanentError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(_json(report) if asked.json else table(report))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock_router.evaluate",
        description="Trains the offline classifier and judges it; runs the bandit from nothing.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", type=Path, required=True, help="outcomes to learn from")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--test", type=Path, help="outcomes to judge on")
    judged.add_argument(
        "--splits", type=_positive, metavar="N", help="judge on N random halves of --train instead"
    )
    parser.add_argument(
        "--seeds", type=_positive, default=20, help="orders of the prompts, for the bandit (20)"
    )
    parser.add_argument(
        "--part", choices=("offline", "online", "both"), default="both", help="which report"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def _report(asked: argparse.Namespace) -> dict[str, Any]:
    rows, lexicon = read_outcomes(asked.train), load_lexicon()
    test = rows if asked.test is None else read_outcomes(asked.test)
    report: dict[str, Any] = {}
    if asked.part != "online":
        _say(f"offline: training on {len(rows)} outcomes")
        found = (
            offline(rows, test, lexicon)
            if asked.splits is None
            else offline_over_splits(rows, asked.splits, lexicon, _say)
        )
        report["offline"] = asdict(found)
    if asked.part != "offline":
        _say(f"online: {asked.seeds} orders of {len(test)} prompts for each exchange rate")
        rates = judge_online(table_of(test, features_of_prompts(test, lexicon)), seeds=asked.seeds)
        report["online"] = [asdict(rate) for rate in rates]
    return report


def _json(report: dict[str, Any]) -> str:
    """JSON has no NaN: what does not exist is null."""
    plain = json.loads(json.dumps(report), parse_constant=lambda _: None)
    return json.dumps(plain, indent=1, allow_nan=False)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = "must be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
