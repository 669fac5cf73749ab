"""Secrets as an operator makes them, and the bus as docker-compose.yml configures it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.deploy import DOCKER, compose, interpolated, read_env_file
from tests.support.processes import run_python

from penstock.embedded.binaries import nats_server


@pytest.fixture(scope="session")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `.env` and the root key lie."""
    directory = tmp_path_factory.mktemp("compose")
    done = run_python(str(DOCKER / "make_secrets.py"), str(directory))
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def variables(secrets_dir: Path) -> dict[str, str]:
    """What Compose fills in."""
    return read_env_file(secrets_dir / ".env")


@pytest.fixture(scope="session")
def filled(variables: dict[str, str]) -> dict[str, Any]:
    """The services of the Compose file with the generated secrets."""
    services: dict[str, Any] = interpolated(compose(), variables)["services"]
    return services


@pytest.fixture
def bus_environment(filled: dict[str, Any]) -> dict[str, str]:
    """What the Compose file tells the bus's container."""
    return {"PATH": os.environ["PATH"], **filled["nats"]["environment"]}


@pytest.fixture
def compose_bus(tmp_path: Path, bus_environment: dict[str, str]) -> Iterator[str]:
    """The bus on `deploy/docker/nats.conf`; only its folder and its ports are others."""
    config = (DOCKER / "nats.conf").read_text()
    assert config.count('"/data"') == 1
    path = tmp_path / "nats.conf"
    path.write_text(config.replace('"/data"', json.dumps(str(tmp_path / "data"))))
    options = ["--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1"]
    command = [str(nats_server()), "--config", str(path), *options]
    process = subprocess.Popen(
        [*command, "--ports_file_dir", str(tmp_path)],
        env=bus_environment,
        stderr=(tmp_path / "nats.log").open("wb"),
    )
    yield _client_address(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def _client_address(directory: Path, process: subprocess.Popen[bytes]) -> str:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s and process.poll() is None:
        for path in directory.glob("*.ports"):
            address: str = json.loads(path.read_text())["nats"][0]
            return address
        time.sleep(0.02)
    raise AssertionError((directory / "nats.log").read_text())
