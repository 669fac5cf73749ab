"""Billing as it runs in production, against real servers; and a hand that writes EVENTS."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import braintree_fake as braintree_fakes
from tests.support import stripe_fake as stripe_fakes
from tests.support.billing import Operator, StartBilling

from penstock_billing.app import App, create_app
from penstock_billing.settings import Settings
from penstock_shared.runtime.broker import Broker


@pytest.fixture
def root_key_file(tmp_path: Path) -> Path:
    """A root key of this test's own."""
    path = tmp_path / "root.key"
    path.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    return path


@pytest.fixture
def start_billing(
    broker: Broker,
    nats_url: str,
    postgres_dsn: str,
    root_key_file: Path,
) -> StartBilling:
    """Starts a replica of billing; leaving the block drains it."""

    @contextlib.asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[App]:
        values = {
            "nats_url": nats_url,
            "postgres_dsn": postgres_dsn,
            "root_key_file": root_key_file,
            "batch_linger_s": 0.01,
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
def operator(broker: Broker) -> Operator:
    """The operator's hand."""
    return Operator(broker)


@pytest.fixture
def stripe_fake() -> Iterator[stripe_fakes.StripeFake]:
    """Stripe's API on a port of this test's own, with an empty account."""
    with stripe_fakes.running() as fake:
        yield fake


@pytest.fixture
def braintree_fake() -> Iterator[braintree_fakes.BraintreeFake]:
    """Braintree's gateway on a port of this test's own, with an empty merchant."""
    with braintree_fakes.running() as fake:
        yield fake
