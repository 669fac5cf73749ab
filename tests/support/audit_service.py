"""Waiting for audit, from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from penstock_audit.app import App
from penstock_audit.verification import VerifiedLog, read_checkpoint, verify_log

StartAudit = Callable[..., AbstractAsyncContextManager[App]]
Publish = Callable[[int], Coroutine[None, None, None]]


def vkey_of(state_dir: Path) -> str:
    """The public key that audit left for auditors."""
    return (state_dir / "audit.pub").read_text()


async def covered(state_dir: Path, seq: int, timeout_s: float = 30.0) -> VerifiedLog:
    """Wait until the signed log holds EVENTS up to `seq`, then verify every byte of it."""
    async with asyncio.timeout(timeout_s):
        while size_of(state_dir) < seq:
            await asyncio.sleep(0.02)
    return await asyncio.to_thread(verify_log, state_dir, vkey_of(state_dir))


def size_of(state_dir: Path) -> int:
    """How many entries are signed; none where there is no log yet."""
    if not (state_dir / "log" / "checkpoint").exists():
        return 0
    return read_checkpoint(state_dir, vkey_of(state_dir)).size


async def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait until `condition` holds; the test fails when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
