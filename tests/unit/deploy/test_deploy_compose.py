"""docker-compose.yml: valid, contained, and without a secret of its own."""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.support.deploy import (
    REPOSITORY,
    SERVICES,
    MissingVariableError,
    compose,
    dockerfile_stages,
    interpolated,
    values,
)
from tests.support.processes import run_python

from penstock_shared.runtime.settings import ServiceSettings

SERVERS = ("nats", "postgres", "redis")
PINNED = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.]+)?")
REQUIRED = re.compile(r"\$\{\w+:\?run \.venv/bin/python deploy/docker/make_secrets\.py\}")
WRITABLE = {"audit": ["audit"], "nats": ["nats"], "postgres": ["postgres"]}


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_the_file_follows_the_compose_specification():
    """The specification's own schema accepts it."""
    path = REPOSITORY / "tests" / "data" / "compose" / "compose-spec.json"
    jsonschema.Draft7Validator(json.loads(path.read_text())).validate(compose())


def test_it_holds_the_five_services_and_three_servers():
    """Nothing is missing, and nothing else runs."""
    assert set(compose()["services"]) == {*SERVICES, *SERVERS}


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_every_container_is_contained(name):
    """I8: no root, no capabilities, no way to get any, nothing to write on but what is named."""
    service = definition(name)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"cap_add", "privileged", "pid", "ipc", "devices", "network_mode"}
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_state_is_in_named_volumes_only(name):
    """Whatever else is mounted is read-only; tmpfs is bounded."""
    mounts = definition(name).get("volumes", [])
    writable = [mount.partition(":")[0] for mount in mounts if not mount.endswith(":ro")]
    assert writable == WRITABLE.get(name, [])
    assert set(writable) <= compose()["volumes"].keys()
    assert all("size=" in mount for mount in definition(name).get("tmpfs", []))


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_images_are_pinned(name):
    """No `latest`: neither what is pulled nor what is built upon."""
    service = definition(name)
    assert PINNED.fullmatch(service["image"])
    inline = service.get("build", {}).get("dockerfile_inline", "")
    assert all(PINNED.fullmatch(image) for image in re.findall(r"(?m)^FROM (\S+)", inline))


def test_only_two_ports_are_published_and_on_loopback_unless_told_otherwise():
    """I8: the API and the bus; monitors, metrics and databases stay inside."""
    published = {
        name: interpolated(definition(name).get("ports", []), {}) for name in (*SERVICES, *SERVERS)
    }
    assert {name: ports for name, ports in published.items() if ports} == {
        "realtime": ["127.0.0.1:8080:8080"],
        "nats": ["127.0.0.1:4222:4222"],
    }


def test_who_publishes_no_port_has_no_way_out():
    """I8: a service that was taken over cannot carry anything away."""
    assert compose()["networks"]["inner"] == {"internal": True}
    outside = [name for name in (*SERVICES, *SERVERS) if definition(name)["networks"] != ["inner"]]
    assert outside == ["realtime", "nats"]


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_no_secret_has_a_default(name):
    """I8: each password, key and seed is asked for, with a sentence that says how to get it."""
    for variable, value in definition(name)["environment"].items():
        if re.search(r"(PASSWORD|SEED|ISSUER|ADMIN_KEY|AUTH)$", variable):
            assert REQUIRED.fullmatch(value), variable
        if re.search(r"(URL|DSN)$", variable):
            assert REQUIRED.search(value.partition("@")[0]), variable


def test_without_secrets_the_message_says_what_to_run():
    """Compose stops with the sentence instead of starting anything."""
    with pytest.raises(MissingVariableError, match=r"make_secrets\.py"):
        interpolated(compose(), {})


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_told_what_it_reads_and_nothing_else(name):
    """No variable is misspelt or missing, and nobody knows a secret without using it (I8)."""
    settings: type[ServiceSettings] = importlib.import_module(f"penstock_{name}.settings").Settings
    environment = definition(name)["environment"]
    told = {variable.removeprefix("PENSTOCK_").lower() for variable in environment}
    required = {field for field, info in settings.model_fields.items() if info.is_required()}
    assert told <= settings.model_fields.keys()
    assert required <= told


def test_the_root_key_reaches_those_that_open_content_and_nobody_else():
    """I10: audit hashes what it cannot read; the servers have nothing to decrypt."""
    holders = [name for name in (*SERVICES, *SERVERS) if definition(name).get("secrets")]
    assert holders == ["realtime", "router", "worker", "billing"]
    for name in holders:
        assert definition(name)["environment"]["PENSTOCK_ROOT_KEY_FILE"] == "/run/secrets/root_key"


def test_billing_waits_for_the_servers_and_the_others_for_billing():
    """Billing owns schema and accounts; nobody waits in a circle."""
    waits = {name: set(definition(name).get("depends_on", {})) for name in (*SERVICES, *SERVERS)}
    assert waits["billing"] == {"nats", "postgres"}
    assert waits["realtime"] == waits["router"] == {"nats", "billing", "redis"}
    assert waits["worker"] == waits["audit"] == {"nats", "billing"}
    assert not any(waits[server] for server in SERVERS)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_built_from_the_one_dockerfile(name):
    """The service is the build argument."""
    build = definition(name)["build"]
    assert build == {
        "context": ".",
        "dockerfile": "deploy/docker/Dockerfile",
        "args": {"SERVICE": name},
    }


@contextmanager
def ops_port(status: int) -> Iterator[int]:
    """Answer every GET with `status`, as a service's `/readyz` does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_believes_readyz(status, healthy):
    """A service that drains or has lost the bus is not healthy."""
    kind, program, *arguments = definition("router")["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    with ops_port(status) as port:
        moved = [argument.replace(":9100", f":{port}") for argument in arguments]
        assert (run_python(*moved).returncode == 0) is healthy


def test_the_health_check_asks_the_port_that_the_image_sets():
    """Dockerfile and Compose file agree on the ops port."""
    (env,) = values(dockerfile_stages()[-1], "ENV")
    assert "PENSTOCK_OPS_PORT=9100" in env
    assert all("127.0.0.1:9100/readyz" in str(definition(name)["healthcheck"]) for name in SERVICES)


def test_mounted_files_are_in_the_repository():
    """An engine would otherwise make an empty folder in their place."""
    for name in (*SERVICES, *SERVERS):
        for mount in interpolated(definition(name).get("volumes", []), {}):
            source = Path(mount.partition(":")[0])
            assert str(source) in compose()["volumes"] or (REPOSITORY / source).exists()
