"""Routers on a real nats-server, with one tenant and one model there."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.router import ROOT, StartRouter, model_record, put_model, put_tenant

from penstock_router.app import App, create_app
from penstock_router.settings import Settings
from penstock_shared.runtime.broker import Broker


@pytest.fixture
def start_router(broker: Broker, nats_url: str, tmp_path: Path) -> StartRouter:
    """Starts a replica of the router; leaving the block drains it."""
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(ROOT).decode())

    @contextlib.asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[App]:
        values = {
            "nats_url": nats_url,
            "root_key_file": key_file,
            "request_deadline_s": 60,
            "sweep_grace_s": 0.1,
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
async def acme(broker: Broker) -> None:
    """The tenant `acme` and the model `small`."""
    await put_model(broker, model_record())
    await put_tenant(broker, "acme")


@pytest.fixture
async def router(acme: None, start_router: StartRouter) -> AsyncIterator[App]:
    """One router."""
    async with start_router() as app:
        yield app
