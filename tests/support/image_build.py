"""A Dockerfile's build stage, run in a clean directory that stands for the image's `/`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.deploy import DOCKER, REPOSITORY, Instruction, dockerfile_stages, values

# Folders that the Dockerfile makes; `/usr` and the like are the base image's.
_OWN: Final = re.compile(r"(?<![\w.])/(opt|src)\b")
# The package registry's settings stay; whatever belongs to the tests' own Python does not.
_FOREIGN: Final = ("PENSTOCK_", "PYTHON", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_CACHE_DIR")


class ImageBuild:
    """The image of one service, without an engine.

    COPY and RUN happen as written, with the stage's own absolute paths moved below `root`. `python`
    is this machine's, not the base image's, and `--mount` caches are left to uv's own.
    """

    def __init__(self, root: Path, service: str) -> None:
        self.root: Final = root
        self.service: Final = service
        self._workdir = root
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        self._environ["SERVICE"] = service
        self._environ["PATH"] = f"{root}/bin:{os.environ['PATH']}"

    @property
    def python(self) -> Path:
        return self.root / "opt/venv/bin/python"

    def build(self) -> None:
        """Run the builder stage from nothing; the first instruction that fails, fails."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "bin").mkdir(parents=True)
        (self.root / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        for instruction in dockerfile_stages()[1]:
            self._apply(instruction)

    def environment(self) -> dict[str, str]:
        """What the final stage's ENV instructions set."""
        environ = {"PATH": "/usr/bin:/bin"}
        for line in values(dockerfile_stages()[-1], "ENV"):
            for word in shlex.split(line):
                name, _, value = word.partition("=")
                expanded = value.replace("$PATH", environ["PATH"]).replace(
                    "${SERVICE}", self.service
                )
                environ[name] = self._moved(expanded)
        return environ

    def command(self, *arguments: str) -> list[str]:
        """The image's entry point with arguments; the script itself is the repository's."""
        assert values(dockerfile_stages()[-1], "ENTRYPOINT") == [
            '["/usr/local/bin/penstock-service"]'
        ]
        return ["/bin/sh", str(DOCKER / "entrypoint.sh"), *arguments]

    def run(
        self, command: list[str], environ: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as in the container, without whatever this machine's environment holds."""
        return subprocess.run(
            command, env=dict(environ), cwd="/", capture_output=True, text=True, check=False
        )

    def _apply(self, instruction: Instruction) -> None:
        if instruction.keyword == "WORKDIR":
            self._workdir = Path(self._moved(instruction.value))
            self._workdir.mkdir(parents=True)
        elif instruction.keyword == "COPY":
            self._copy(*instruction.value.replace("${SERVICE}", self.service).split())
        elif instruction.keyword == "RUN":
            self._shell(re.sub(r"--mount=\S+\s*", "", instruction.value))
        else:
            assert instruction.keyword in {"FROM", "ARG"}, instruction

    def _copy(self, source: str, target: str) -> None:
        origin, destination = REPOSITORY / source, self._workdir / target
        if origin.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(origin, destination, ignore=ignored)
        else:
            shutil.copy(origin, destination)

    def _shell(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self._moved(command)],
            env=self._environ,
            cwd=self._workdir,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}"

    def _moved(self, text: str) -> str:
        return _OWN.sub(lambda match: f"{self.root}/{match[1]}", text)
