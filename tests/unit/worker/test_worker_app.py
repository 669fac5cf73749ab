"""The worker's composition root: whatever went wrong before, it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock_worker.app import App
from penstock_worker.settings import Settings


async def test_a_task_that_failed_does_not_keep_it_from_stopping(tmp_path: Path):
    """An answer that could not be sent is forgotten; jobs and engines are let go of after it."""
    app = App(Settings(root_key_file=tmp_path / "root.key", nats_url="nats://127.0.0.1:1"))

    async def fail() -> None:
        raise ConnectionError("the broker is gone")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    app._tasks.append(task)
    await app.stop()
