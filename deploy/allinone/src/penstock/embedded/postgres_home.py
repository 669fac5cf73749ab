"""Where PostgreSQL's programs and data lie when it runs as another user.

Only a `DroppedIdentity` needs any of this: it can enter neither root's home, where a virtual
environment or the default data directory may lie, nor directories that are closed to others.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from penstock.embedded.identities import DroppedIdentity, can_reach
from penstock.private_file import make_private_directory
from penstock.supervision.spec import Identity

_OPEN_PLACE = Path("/var/lib/penstock")
_OPEN_DIRECTORY = 0o755
_COPIED_PROGRAMS = ("postgres", "initdb")
_COPIED_FOLDERS = ("lib", "share")


@dataclass(frozen=True, slots=True)
class PostgresHome:
    """The folder of `bin/postgres`, and the one that holds the cluster."""

    install: Path
    directory: Path


def settle(directory: Path, install: Path, identity: Identity | None) -> PostgresHome:
    """Choose places that the identity can reach, copying the installation where it cannot."""
    make_private_directory(directory)
    if not isinstance(identity, DroppedIdentity):
        return PostgresHome(install, directory)
    if not can_reach(directory.parent, identity):
        # Named after the path, so that a restart finds it and two stacks keep apart.
        mark = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
        directory = _OPEN_PLACE / f"postgres-{mark}"
        _OPEN_PLACE.mkdir(mode=_OPEN_DIRECTORY, parents=True, exist_ok=True)
        make_private_directory(directory)
    _give_tree_to(directory, identity)
    if not can_reach(install / "bin", identity):
        install = _copy_install(install, directory, identity)
    return PostgresHome(install, directory)


def give_to(path: Path, identity: Identity | None) -> None:
    """Make a dropped user the owner of one file or directory; others own it already."""
    if isinstance(identity, DroppedIdentity):
        os.chown(path, identity.uid, identity.gid)


def _give_tree_to(directory: Path, identity: DroppedIdentity) -> None:
    if directory.stat().st_uid == identity.uid:
        return
    for folder, _, files in os.walk(directory):
        for name in files:
            give_to(Path(folder, name), identity)
        give_to(Path(folder), identity)


def _copy_install(install: Path, directory: Path, identity: DroppedIdentity) -> Path:
    """Copy what the server needs (about 30 MB), once; the libraries' relative places stay."""
    package = directory / "install" / install.parent.name
    target = package / install.name
    if target.exists():
        return target
    unfinished = package / f"{install.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "bin").mkdir(parents=True)
    for program in _COPIED_PROGRAMS:
        shutil.copy2(install / "bin" / program, unfinished / "bin" / program)
    for folder in _COPIED_FOLDERS:
        shutil.copytree(install / folder, unfinished / folder, symlinks=True)
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, package.with_name(libraries.name), dirs_exist_ok=True)
    for folder, _, files in os.walk(directory / "install"):
        for name in (*files, "."):
            os.chown(Path(folder, name), identity.uid, identity.gid, follow_symlinks=False)
    unfinished.rename(target)
    return target
