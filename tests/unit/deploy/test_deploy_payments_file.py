"""deploy/docker/payments.yml: what billing gets where a payment provider is used."""

from __future__ import annotations

import json

import jsonschema
import yaml
from tests.support.deploy import REPOSITORY

from penstock_billing.settings import Settings

PAYMENTS = REPOSITORY / "deploy" / "docker" / "payments.yml"


def test_it_gives_billing_alone_a_way_out_and_one_port_on_loopback():
    """I8: nothing else changes, and no key is written into the file."""
    added = yaml.safe_load(PAYMENTS.read_text())
    path = REPOSITORY / "tests" / "data" / "compose" / "compose-spec.json"
    jsonschema.Draft7Validator(json.loads(path.read_text())).validate(added)
    assert set(added["services"]) == {"billing"}
    billing = added["services"]["billing"]
    assert billing["networks"] == ["edge", "inner"]
    assert [port.split("}:")[0] for port in billing["ports"]] == [
        "${PENSTOCK_PUBLISH_ADDRESS:-127.0.0.1"
    ]
    given = {name for name, value in billing["environment"].items() if value is not None}
    assert given == {"PENSTOCK_WEBHOOK_HOST", "PENSTOCK_WEBHOOK_PORT"}


def test_every_variable_is_a_setting_of_billing():
    """A name with a typing error would be ignored, and nobody would be paid."""
    environment = yaml.safe_load(PAYMENTS.read_text())["services"]["billing"]["environment"]
    known = {f"PENSTOCK_{name.upper()}" for name in Settings.model_fields}
    assert environment.keys() <= known
    assert environment["PENSTOCK_WEBHOOK_PORT"] == "8090"
