"""The outcomes that the router is trained and judged with: what the file says is what happens."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from penstock_models.answer_schema import ANSWER_SCHEMA
from penstock_models.messages import Message, Task, held_out_messages
from penstock_models.outcomes import SEED, confidence, distinct_messages, main, rows
from penstock_models.scene import Grade
from penstock_worker.domain import flaw

MODELS = Path(__file__).parents[3] / "models"
COMMITTED = MODELS / "outcomes" / "reference.jsonl.gz"
MEASURED = {"cpu_us", "engine_cpu_us"}
VALID = jsonschema_rs.Draft202012Validator(ANSWER_SCHEMA).is_valid


def texts_of(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what a machine's speed decides."""
    return {
        name: {key: part for key, part in value.items() if key not in MEASURED}
        if isinstance(value, dict)
        else value
        for name, value in row.items()
    }


def test_messages_are_balanced_distinct_and_none_that_models_are_judged_by() -> None:
    """Every task and grade as often, no text twice, none of the cards'; the seed decides."""
    drawn = list(distinct_messages(5, 12))
    cells = [(message.task, message.grade) for message in drawn]
    assert all(cells.count((task, grade)) == 12 for task in Task for grade in Grade)
    assert len(set(texts_of(drawn))) == len(drawn)
    assert not set(texts_of(drawn)) & set(texts_of(held_out_messages()))
    assert texts_of(drawn) == texts_of(list(distinct_messages(5, 12)))
    assert texts_of(drawn) != texts_of(list(distinct_messages(6, 12)))


def test_every_right_answer_satisfies_the_schema() -> None:
    """The schema refuses no answer that would be right, and some that are not."""
    assert all(VALID(message.answer) for message in distinct_messages(3, 40))
    for wrong in (
        {"intent": "faq", "topic": "weather"},
        {"intent": "order", "items": []},
        {"intent": "order", "items": [{"item": "mug", "quantity": 0}]},
        {"intent": "lead", "name": "Ada"},
        {"intent": "other", "note": ""},
        {"intent": "multi", "parts": [{"intent": "other"}, {"intent": "other"}]},
    ):
        assert not VALID(wrong)


@pytest.mark.parametrize(
    "log_probs", [[-0.1, -0.7, -0.01], [0.0], [1e-9, -1e-9], [-1000.0], [-0.3] * 40]
)
def test_confidence_is_the_workers(log_probs: list[float]) -> None:
    """To six digits: what is tuned here is what a worker compares with."""
    worker = flaw.confidence(sum(log_probs), len(log_probs))
    assert worker is not None
    assert confidence(log_probs) == pytest.approx(worker, abs=5e-7)
    assert confidence([]) is flaw.confidence(0.0, 0) is None


def test_rows_follow_from_the_seed(tmp_path: Path) -> None:
    """Twice the same but for the time; what is right satisfies the schema, and costs something."""
    found = list(rows(MODELS, 11, 1, 1))
    where = ["--models", str(MODELS), "--out", str(tmp_path / "o.gz")]
    main([*where, "--seed", "11", "--per-cell", "1", "--repeats", "1"])
    assert list(map(without_time, read(tmp_path / "o.gz"))) == list(map(without_time, found))
    assert {row["domain"] for row in found} == {f"{t}/{g}" for t in Task for g in Grade}
    for row in found:
        for right, run in ((row["weak"], row["weak_run"]), (row["strong"], row["strong_run"])):
            assert run["schema_ok"] or not right
            assert 0 < run["confidence"] <= 1
            assert run["cpu_us"] > 0
            assert run["engine_cpu_us"] > 0
            assert run["input_tokens"] > run["output_tokens"] > 0
        assert row["weak_run"]["input_tokens"] == row["strong_run"]["input_tokens"]


def test_the_committed_file_is_what_the_script_writes() -> None:
    """Its texts are those of the seed, in order and in equal shares."""
    committed = read(COMMITTED)
    per_cell = len(committed) // (len(Task) * len(Grade))
    drawn = list(distinct_messages(SEED, per_cell))
    assert [row["prompt"] for row in committed] == texts_of(drawn)
    assert [row["domain"] for row in committed] == [f"{m.task}/{m.grade}" for m in drawn]
