"""What fault tests of single services stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.doctored_worker import ACK_WAIT_S
from tests.support.edges import Edges
from tests.support.worker_rig import WorkerRig

from penstock_shared.contracts import streams
from penstock_shared.runtime.broker import Broker


@pytest.fixture
async def rig(
    broker: Broker, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerRig]:
    """A worker's surroundings; a dead worker's jobs come back after `ACK_WAIT_S`."""
    monkeypatch.setattr(streams, "JOB_ACK_WAIT_S", ACK_WAIT_S)
    async with WorkerRig(broker, nats_url, tmp_path) as rig:
        yield rig


@pytest.fixture
async def edges(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Edges]:
    """A backend and an account; the test starts the edges."""
    async with Edges(broker, nats_url, redis_url, tmp_path) as made:
        yield made
