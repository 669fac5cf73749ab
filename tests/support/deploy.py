"""docker-compose.yml and the Dockerfile, read as an engine reads them, where there is no engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

REPOSITORY: Final = Path(__file__).parents[2]
DOCKER: Final = REPOSITORY / "deploy" / "docker"
SERVICES: Final = ("realtime", "router", "worker", "billing", "audit")
_VARIABLE: Final = re.compile(r"\$(?:\$|\{(\w+)(?:(:-|:\?)([^}]*))?\})")


class MissingVariableError(Exception):
    """A `${NAME:?what to do}` without a value."""


@cache
def compose() -> dict[str, Any]:
    """The Compose file with its anchors merged and its variables as they are written."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return loaded


def interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    """Part of the Compose file with its variables filled in.

    Source: Compose specification, "Interpolation".

    Raises:
        MissingVariableError: one that is required has no value.
    """
    if isinstance(node, dict):
        return {name: interpolated(value, variables) for name, value in node.items()}
    if isinstance(node, list):
        return [interpolated(item, variables) for item in node]
    return _VARIABLE.sub(lambda m: _value(m, variables), node) if isinstance(node, str) else node


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, form, text = match.groups()
    if name is None:
        return "$"
    if variables.get(name):
        return variables[name]
    if form == ":-":
        return str(text)
    raise MissingVariableError(f"{name}: {text}")


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file without quotes or comments."""
    pairs = (line.partition("=") for line in path.read_text().splitlines())
    return {name: value for name, _, value in pairs}


class Instruction(NamedTuple):
    """One instruction of a Dockerfile."""

    keyword: str
    value: str


def dockerfile_stages() -> list[list[Instruction]]:
    """The stages of the services' Dockerfile; what precedes the first FROM is stage 0."""
    text = (DOCKER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[list[Instruction]] = [[]]
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        keyword, _, value = line.partition(" ")
        if keyword == "FROM":
            stages.append([])
        stages[-1].append(Instruction(keyword, value.strip()))
    return stages


def values(stage: list[Instruction], keyword: str) -> list[str]:
    """What the stage says under this keyword."""
    return [instruction.value for instruction in stage if instruction.keyword == keyword]
