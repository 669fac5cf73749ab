"""Loopback ports that stay the same from one start to the next."""

import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from penstock.errors import OperatorError

LOOPBACK = "127.0.0.1"


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        # A server restarted a moment ago leaves connections in TIME_WAIT; they do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def choose_ports(names: Iterable[str], remembered: Mapping[str, int]) -> dict[str, int]:
    """Give each name a port: the remembered one while it is free, otherwise a new one.

    New ones come from bind(0), whose parity the kernel keeps apart from that of outgoing
    connections: a client that retries a dead port cannot then connect to itself. All are held
    open until the last is chosen, so that no two names get the same.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            port = remembered.get(name)
            if port is None or port in chosen.values() or not port_is_free(port):
                port = _bind_any(held)
            chosen[name] = port
    return chosen


def _bind_any(held: ExitStack) -> int:
    listener = held.enter_context(socket.socket())
    listener.bind((LOOPBACK, 0))
    port: int = listener.getsockname()[1]
    return port


def require_free_port(port: int, host: str) -> None:
    """Refuse a port that the operator asked for and that something else holds.

    Raises:
        OperatorError: The port is taken, or this user may not listen there.
    """
    if not port_is_free(port, host):
        raise OperatorError(
            f"Port {port} on {host} is in use by another program, or not allowed to this user.",
            "Choose another with --port N, or let Penstock find a free one with --port 0.",
        )
