"""`python -m penstock_router.evaluate`: what it measures, and what it says of bad files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from penstock_router.evaluate.__main__ import main
from penstock_router.evaluate.outcomes import read_outcomes
from penstock_router.evaluate.routing_measures import (
    apgr,
    calibration_error,
    call_performance_threshold,
    routing_curve,
)
from penstock_shared.contracts.errors import PermanentError

SAMPLE = Path(__file__).parents[2] / "data" / "routellm" / "outcomes.jsonl.gz"


def test_chance_recovers_half_the_gap_and_the_oracle_more_than_all_of_it() -> None:
    """APGR is 0.5 for a random order and above 1 for the true uplift, as RouteLLM has it."""
    rng = np.random.default_rng(1)
    weak = (rng.random(20_000) < 0.6).astype(float)
    strong = (rng.random(20_000) < 0.8).astype(float)
    assert apgr(rng.random(20_000), weak, strong) == pytest.approx(0.5, abs=0.02)
    assert apgr(strong - weak + rng.random(20_000) / 10, weak, strong) > 1
    assert call_performance_threshold(rng.random(20_000), weak, strong, 0.5) == pytest.approx(
        0.5, abs=0.03
    )


def test_the_curve_goes_from_the_weak_model_to_the_strong_one() -> None:
    """Ten prompts of which three gain, ranked first: worked out by hand."""
    weak = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1], float)
    strong = np.ones(10)
    shares, accuracies = routing_curve(np.arange(10, 0, -1.0), weak, strong)
    assert (shares[0], shares[-1]) == (0, 1)
    assert (accuracies[0], accuracies[-1]) == (0.7, 1.0)
    # 0.7 + 0.1 per tenth until 0.3, then 1: the area above 0.7 is 0.255 of 0.3.
    assert apgr(np.arange(10, 0, -1.0), weak, strong) == pytest.approx(0.85)
    assert call_performance_threshold(np.arange(10, 0, -1.0), weak, strong, 0.5) == pytest.approx(
        0.15
    )


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    """Two models that are equally good have no APGR, rather than an infinite one."""
    assert np.isnan(apgr(np.arange(10.0), np.ones(10), np.ones(10)))


def test_calibration_error_in_bins_of_equal_mass() -> None:
    """Said 0.9 and right 60 % of the time is off by 0.3; said as it is, by nothing."""
    right = np.tile([1.0, 1, 1, 0, 0], 300)
    rng = np.random.default_rng(3)
    assert calibration_error(np.full(1_500, 0.9), right) == pytest.approx(0.3, abs=0.01)
    p = rng.random(30_000)
    assert calibration_error(p, (rng.random(30_000) < p).astype(float)) < 0.015


def test_the_report_of_a_small_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is promised stands in the report, and the numbers hang together."""
    lines = gzip.decompress(SAMPLE.read_bytes()).splitlines(keepends=True)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl.gz"
    train.write_bytes(b"".join(lines[:250]))
    test.write_bytes(gzip.compress(b"".join(lines[250:])))
    assert main(["--train", str(train), "--test", str(test), "--part", "offline", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["offline"]
    assert (report["trained_on"], report["judged_on"]) == (250, 250)
    for name in ("mmlu.apgr", "gsm8k.cpt50", "all.cpt80", "weak.ece_before", "strong.ece_after"):
        found = report["measures"][name]
        assert found["low"] <= found["high"], name
    policies = report["policies"]
    assert policies["always cheap"]["cost"] < policies["oracle"]["cost"]
    assert policies["oracle"]["cost"] < policies["always strong"]["cost"]
    assert policies["oracle"]["accuracy"] >= policies["best single"]["accuracy"]
    assert 0 < report["decision_us"]["p50"] <= report["decision_us"]["p99"]
    assert main(["--train", str(train), "--splits", "2", "--part", "offline"]) == 0
    printed = capsys.readouterr()
    assert "mmlu.apgr" in printed.out
    assert "split 2 of 2" in printed.err


def test_domain_is_no_feature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With every domain renamed the same prompts get the same measures."""
    rows = [json.loads(line) for line in gzip.decompress(SAMPLE.read_bytes()).splitlines()][:300]
    measures = []
    for name in ("a/b", "c/d"):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({**row, "domain": name}) + "\n" for row in rows))
        main(["--train", str(path), "--test", str(path), "--part", "offline", "--json"])
        measures.append(json.loads(capsys.readouterr().out)["offline"]["measures"]["all.apgr"])
    assert measures[0] == measures[1]


def test_models_that_are_alike_have_no_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to recover is null, not a number that JSON lacks."""
    rows = [json.loads(line) for line in gzip.decompress(SAMPLE.read_bytes()).splitlines()][:60]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "strong": row["weak"]}) + "\n" for row in rows))
    asked = ["--train", str(path), "--test", str(path), "--part", "offline", "--json"]
    assert main(asked) == 0
    measures = json.loads(capsys.readouterr().out)["offline"]["measures"]
    assert measures["all.apgr"] == {"mean": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no outcomes"),
        (b"\x1f\x8bnonsense", "cannot be read"),
        (b'{"prompt": "a", "domain": "b", "weak": true, "strong": true}\nx\n', "line 2"),
        (b'{"prompt": "a", "domain": "b", "weak": true}\n', "line 1: strong"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(
    content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says which file, which line and which field, and the exit status is 2."""
    path = tmp_path / "outcomes.jsonl"
    path.write_bytes(content)
    with pytest.raises(PermanentError, match=says):
        read_outcomes(path)
    assert main(["--train", str(path), "--test", str(path)]) == 2
    assert says in capsys.readouterr().err
    assert main(["--train", str(tmp_path / "none"), "--test", str(path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
