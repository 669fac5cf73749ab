"""deploy/prometheus: rules about metrics that exist, with a next step that exists."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from tests.support.deploy import REPOSITORY

from penstock_billing.metrics import DRIFT

RULES = REPOSITORY / "deploy" / "prometheus" / "billing.rules.yml"
SOURCES = REPOSITORY / "services" / "billing" / "src"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_metric_and_outcome_is_there_from_the_start(rule):
    """A rule about a metric that was renamed never fires, and nobody sees that it does not.

    Nor does one about the increase of a series that begins with its first event.
    """
    DRIFT.labels("rows")  # its checks are named by the first comparison
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    named = set(re.findall(r"billing_\w+", rule["expr"]))
    assert named
    assert named <= {sample.name for sample in samples}
    for metric, outcome in re.findall(r'(billing_\w+)\{outcome="(\w+)"', rule["expr"]):
        assert outcome in {s.labels["outcome"] for s in samples if s.name == metric}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_log_event_that_is_named_is_logged(rule):
    """Who is called at night looks for it."""
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    step = rule["annotations"]["next_step"]
    for event in re.findall(r"\b([a-z_]+\.(?:postponed|failed|parked|not_closed|unclear))\b", step):
        name, _, outcome = event.partition(".")
        assert f'"{event}"' in code or (f'"{name}"' in code and f".{outcome}" in code)
    assert rule["labels"]["severity"] in {"page", "ticket"}
