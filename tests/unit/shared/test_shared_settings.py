"""Settings: from the environment only, frozen, masked when printed, a sentence when missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from penstock_router.settings import Settings as RouterSettings

SERVICES = ("realtime", "router", "worker", "billing", "audit")


def run(service: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    return subprocess.run(
        [sys.executable, "-m", f"penstock_{service}", "--check-config"],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FULL = {
    "PENSTOCK_NATS_URL": "nats://user:hunter2@127.0.0.1:4222",
    "PENSTOCK_POSTGRES_DSN": "postgresql://user:hunter2@127.0.0.1/db",
    "PENSTOCK_REDIS_URL": "redis://:hunter2@127.0.0.1/0",
    "PENSTOCK_ROOT_KEY_FILE": "/nowhere/root.key",
    "PENSTOCK_STATE_DIR": "/nowhere/state",
    "PENSTOCK_MODELS_DIR": "/nowhere/models",
    "PENSTOCK_ADMIN_KEY": "hunter2hunter2",
    "PENSTOCK_AUTH_CALLOUT_SEED": "hunter2seed",
}


@pytest.mark.parametrize("service", SERVICES)
def test_check_config_prints_settings_without_secrets(service: str) -> None:
    """`--check-config` shows what a service would use, and no password (I8)."""
    done = run(service, FULL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nats_url"] == "**********"
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_missing_settings_are_named(service: str) -> None:
    """Without settings: exit 2 and the variables by name, no stack trace."""
    done = run(service, {})
    assert done.returncode == 2
    assert "PENSTOCK_NATS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody changes a setting after it was read."""
    monkeypatch.setenv("PENSTOCK_NATS_URL", "nats://x")
    monkeypatch.setenv("PENSTOCK_ROOT_KEY_FILE", "/x")
    settings = RouterSettings()
    with pytest.raises(ValidationError):
        settings.instance = "other"  # type: ignore[misc] # the point
