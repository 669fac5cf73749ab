"""A worker's surroundings: streams, keys, and whoever publishes jobs and listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.worker_rig import WorkerRig

from penstock_shared.runtime.broker import Broker


@pytest.fixture
async def rig(broker: Broker, nats_url: str, tmp_path: Path) -> AsyncIterator[WorkerRig]:
    async with WorkerRig(broker, nats_url, tmp_path) as rig:
        yield rig
