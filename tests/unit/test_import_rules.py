"""The dependency rule is enforced: the tree obeys it, and a planted violation fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = (
    "shared/src",
    "deploy/allinone/src",
    *(f"services/{name}/src" for name in ("realtime", "router", "worker", "billing", "audit")),
)
VIOLATIONS: Final = {
    "a service imports another": (
        "services/router/src/penstock_router/domain/decision.py",
        "import penstock_billing.app\n",
    ),
    "domain imports an adapter": (
        "services/router/src/penstock_router/domain/decision.py",
        "import penstock_router.adapters.sweeper\n",
    ),
    "domain does I/O": (
        "services/router/src/penstock_router/domain/features.py",
        "import nats\n",
    ),
    "contracts import the runtime": (
        "shared/src/penstock_shared/contracts/ids.py",
        "import penstock_shared.runtime.clock\n",
    ),
    "shared imports a service": (
        "shared/src/penstock_shared/runtime/clock.py",
        "import penstock_worker\n",
    ),
    "the engine outside its adapter": (
        "services/realtime/src/penstock_realtime/app.py",
        "import ctranslate2\n",
    ),
}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    paths = ":".join(str(root / source) for source in SOURCES)
    return subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; from importlinter.cli import lint_imports;"
                "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
            ),
        ],
        cwd=root,
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources that a violation may be planted in."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", root)
    for source in SOURCES:
        shutil.copytree(ROOT / source, root / source, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_the_tree_obeys_the_dependency_rule(copy: Path) -> None:
    """import-linter passes on the sources as they are."""
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("violation", sorted(VIOLATIONS))
def test_a_planted_violation_fails(copy: Path, violation: str) -> None:
    """Each rule is able to fail."""
    path, line = VIOLATIONS[violation]
    target = copy / path
    original = target.read_text()
    target.write_text(original + line)
    try:
        done = lint_imports(copy)
    finally:
        target.write_text(original)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
