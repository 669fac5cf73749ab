"""Show the processes' logs while they grow, without standing between a process and its log."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

_LOOK_EVERY_S = 0.2


async def follow_logs(logs: Mapping[str, Path], echo: Callable[[str, str], None]) -> None:
    """Hand every line that is added from now on to `echo`, with the process's name; endless."""
    offsets = {name: _size(path) for name, path in logs.items()}
    while True:
        for name, path in logs.items():
            offsets[name] = _echo_new(name, path, offsets[name], echo)
        await asyncio.sleep(_LOOK_EVERY_S)


def _echo_new(name: str, path: Path, offset: int, echo: Callable[[str, str], None]) -> int:
    """Echo the whole lines beyond the offset; returns where the next look begins."""
    size = _size(path)
    if size < offset:  # set aside and begun anew
        offset = 0
    if size == offset:
        return offset
    with path.open("rb") as log:
        log.seek(offset)
        whole, newline, _ = log.read(size - offset).rpartition(b"\n")
    for line in whole.decode("utf-8", errors="replace").splitlines():
        echo(name, line)
    return offset + len(whole) + len(newline)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
