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
    vkey = vkey_of(state_dir)
    async with asyncio.timeout(timeout_s):
        while read_checkpoint(state_dir, vkey).size < seq:
            await asyncio.sleep(0.02)
    return await asyncio.to_thread(verify_log, state_dir, vkey)


async def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait until `condition` holds; the test fails when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
