"""The services' Dockerfile, without building it."""

from __future__ import annotations

import re

from tests.support.deploy import DOCKER, REPOSITORY, dockerfile_stages, values


def test_one_pinned_base_serves_both_stages():
    """The virtual environment runs on the Python that made it."""
    head, builder, final = dockerfile_stages()
    (image,) = values(head, "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.12\.\d+-slim-\w+", image)
    assert values(builder, "FROM") == ["${PYTHON_IMAGE} AS builder"]
    assert values(final, "FROM") == ["${PYTHON_IMAGE}"]


def test_the_image_does_not_run_as_root():
    """A numeric user, which Kubernetes can verify, from the last step that needs root on."""
    final = dockerfile_stages()[-1]
    keywords = [instruction.keyword for instruction in final]
    assert values(final, "USER") == ["10001:10001"]
    assert keywords.index("USER") > max(keywords.index("RUN"), keywords.index("COPY"))


def test_the_lock_pins_what_is_installed_and_what_builds_it():
    """The same uv as in the Makefile, the same constraints."""
    runs = " ".join(values(dockerfile_stages()[1], "RUN"))
    version = re.search(
        r"^UV_VERSION := (\S+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE
    )
    assert version is not None
    assert f"uv=={version[1]}" in runs
    assert "--constraints constraints.txt" in runs
    assert "--build-constraints constraints.txt" in runs


def test_the_final_image_gets_the_environment_and_the_entry_point_only():
    """Neither sources nor build tools."""
    assert values(dockerfile_stages()[-1], "COPY") == [
        "--from=builder /opt/venv /opt/venv",
        "--chmod=0755 deploy/docker/entrypoint.sh /usr/local/bin/penstock-service",
    ]


def test_no_secret_is_built_in():
    """I8: neither as an argument nor as a variable."""
    for stage in dockerfile_stages():
        for text in (*values(stage, "ARG"), *values(stage, "ENV")):
            assert not re.search(r"PASSWORD|SEED|_KEY|URL|DSN", text)


def test_the_build_sees_what_it_copies_and_nothing_else():
    """I8: `.env`, the root key and the models never reach the engine's context."""
    patterns = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in patterns if not line.startswith("#")]
    assert rules[0] == "*"
    copied = [
        source.split()[-2]
        for stage in dockerfile_stages()
        for source in values(stage, "COPY")
        if "--from" not in source
    ]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {source.partition("/${SERVICE}")[0] for source in copied}
