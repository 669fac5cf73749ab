"""How the embedded PostgreSQL runs when the operator is root, which it refuses to be.

First choice is a user namespace in which the operator's own uid bears another number: files
keep their owner, so nothing is copied and the data may lie in root's home. Where the kernel or
a container forbids namespaces, the process changes to an unprivileged user for good.
"""

import ctypes
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import OperatorError
from penstock.supervision.spec import Identity

_CLONE_NEWUSER = 0x10000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MaskedIdentity:
    """The operator's own user, seen under another number inside a namespace of the process."""

    uid: int
    gid: int

    def assume(self) -> None:
        """Enter a new user namespace in which this user is called `uid`."""
        own_uid, own_gid = os.geteuid(), os.getegid()
        if _LIBC.unshare(_CLONE_NEWUSER) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        _write_proc("setgroups", "deny")
        _write_proc("uid_map", f"{self.uid} {own_uid} 1")
        _write_proc("gid_map", f"{self.gid} {own_gid} 1")


@dataclass(frozen=True, slots=True)
class DroppedIdentity:
    """Another, unprivileged user, for good; only root can choose it."""

    uid: int
    gid: int

    def assume(self) -> None:
        """Give up root."""
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)


def _write_proc(name: str, text: str) -> None:
    handle = os.open(f"/proc/self/{name}", os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def needs_other_identity() -> bool:
    """Tell whether PostgreSQL refuses this user: root, or one without a name (containers)."""
    if os.geteuid() == 0:
        return True
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return True
    return False


def choose_identity() -> Identity | None:
    """Choose whom PostgreSQL runs as; None stands for the operator's own user.

    Raises:
        OperatorError: This user can neither be masked nor changed.
    """
    if not needs_other_identity():
        return None
    user = _unprivileged_user()
    masked = MaskedIdentity(user.pw_uid, user.pw_gid)
    if identity_works(masked):
        return masked
    if os.geteuid() == 0:
        return DroppedIdentity(user.pw_uid, user.pw_gid)
    raise OperatorError(
        f"PostgreSQL needs a user with a name, and user number {os.geteuid()} has none here.",
        "Add the user to /etc/passwd, or set PENSTOCK_POSTGRES_DSN to a server of your own.",
    )


def identity_works(identity: Identity) -> bool:
    """Try whether a process can be started under this identity here."""
    try:
        # Safe: assume() only makes system calls, and a failure surfaces as SubprocessError.
        subprocess.run(["/bin/true"], check=True, preexec_fn=identity.assume)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _unprivileged_user() -> pwd.struct_passwd:
    """`nobody`, or whichever user with a name is not root."""
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        pass
    for user in pwd.getpwall():
        if user.pw_uid != 0:
            return user
    raise OperatorError(
        "PostgreSQL refuses to run as root, and no other user exists here.",
        "Add one to /etc/passwd, or set PENSTOCK_POSTGRES_DSN to a server of your own.",
    )


@contextmanager
def seen_as(identity: Identity | None) -> Iterator[None]:
    """Look at processes as a dropped user would.

    A container's root without CAP_SYS_PTRACE may not read another user's /proc entries; that
    user itself may.
    """
    if not isinstance(identity, DroppedIdentity):
        yield
        return
    own = os.geteuid()
    os.seteuid(identity.uid)
    try:
        yield
    finally:
        os.seteuid(own)


def can_reach(path: Path, identity: DroppedIdentity) -> bool:
    """Tell whether a dropped user may pass through every directory down to `path`."""
    for place in (path, *path.parents):
        status = place.stat()
        mode = status.st_mode
        if status.st_uid == identity.uid:
            allowed = mode & 0o100
        elif status.st_gid == identity.gid:
            allowed = mode & 0o010
        else:
            allowed = mode & 0o001
        if not allowed:
            return False
    return True
