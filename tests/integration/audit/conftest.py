"""Audit as it runs in production, against a real nats-server; and a hand that writes EVENTS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_service import Publish, StartAudit

from penstock_audit.app import App, create_app
from penstock_audit.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.runtime.broker import Broker


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def start_audit(broker: Broker, nats_url: str, state_dir: Path) -> StartAudit:
    """Starts audit; leaving the block drains it."""

    @contextlib.asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[App]:
        values = {
            "nats_url": nats_url,
            "state_dir": state_dir,
            "audit_linger_ms": 10,
            **overrides,
        }
        app = create_app(Settings(**values))
        try:
            await app.start()
            yield app
            await app.drain()
        finally:
            await app.stop()

    return start


@pytest.fixture
def publish(broker: Broker) -> Publish:
    """Writes so many facts to EVENTS, each acknowledged."""
    written = 0

    async def write(count: int) -> None:
        nonlocal written
        subject = subjects.topic_event("acme", "test", "happened")
        for start in range(0, count, 200):
            batch = range(written + start, written + min(start + 200, count))
            await asyncio.gather(
                *(
                    broker.publish(
                        subject,
                        b'{"n":%d}' % n,
                        Envelope(id=f"test/{n}", source="/test", type="test.happened.v1"),
                    )
                    for n in batch
                )
            )
        written += count

    return write
