"""Stacks in temporary directories, with dummy services in place of the real ones."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.integration.allinone.running_stack import RunningStack

from penstock.settings import SERVICES

DUMMY = Path(__file__).parent / "dummies" / "dummy_service.py"


@pytest.fixture
def start_stack(tmp_path):
    """Start `penstock up` with the embedded servers alone, or with the services named."""
    with ExitStack() as running:

        def start(name="data", *options, services="", env=None, prefix=()):
            stack = RunningStack(
                tmp_path / name,
                {"PENSTOCK_SERVICES": services, **(env or {})},
                *options,
                prefix=prefix,
            )
            return running.enter_context(stack)

        yield start


@pytest.fixture
def diary(tmp_path):
    """Where the dummy services note what happens to them."""
    path = tmp_path / "diary"
    path.touch()
    return path


@pytest.fixture
def dummies(tmp_path, diary):
    """Environment in which `python -m penstock_<service>` runs the dummy."""
    modules = tmp_path / "modules"
    for service in SERVICES:
        package = modules / f"penstock_{service}"
        package.mkdir(parents=True)
        # What the supervisor itself imports of a service is still the real one's.
        (package / "__init__.py").write_text(
            "from pkgutil import extend_path\n\n__path__ = extend_path(__path__, __name__)\n"
        )
        (package / "__main__.py").write_text("from dummy_service import main\n\nmain()\n")
    shutil.copy(DUMMY, modules)
    models = tmp_path / "models"
    models.mkdir()
    return {
        "PYTHONPATH": str(modules),
        "DUMMY_DIARY": str(diary),
        "PENSTOCK_MODELS_DIR": str(models),
    }
