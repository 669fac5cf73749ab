"""Pushing dies at every step, Stripe fails in every way: each cent counts once (I2, I7).

`PENSTOCK_FAULT_SEED=<n>` replays a run's choices: what is used, who fails how, who dies where.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from stripe._http_client import HTTPClient
from tests.support.stripe_fake import running
from tests.support.stripe_rig import CENT, StripeRig, stripe_rig

from penstock_billing.handlers.pushing import UsagePusher
from penstock_shared.contracts.errors import UnavailableError

START = datetime(2026, 11, 2, tzinfo=UTC)
NOVEMBER = date(2026, 11, 1)
TENANTS = ("acme", "globex", "initech")


class Died(BaseException):
    """The process, here."""


class Mortal:
    """A port under whose calls the process dies by chance: before the call, or after its effect."""

    def __init__(self, port: Any, rng: random.Random, share: float) -> None:
        self._port = port
        self._rng = rng
        self.share = share

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._port, name)

        async def call(*args: Any) -> Any:
            self._die()
            result = await method(*args)
            self._die()
            return result

        return call

    def _die(self) -> None:
        if self._rng.random() < self.share:
            raise Died


@pytest.fixture
async def rig(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StripeRig]:
    """Three tenants at the beginning of a month."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    with running(seed=1) as fake:
        async with stripe_rig(fake, postgres_dsn, START) as made:
            made.connection._http._timeout = 0.2
            for tenant in TENANTS:
                await made.add_tenant(tenant)
            await made.sync.look()
            yield made


@pytest.mark.parametrize("stream_from", [2, 50])
async def test_each_cent_counts_once_whatever_dies(rig: StripeRig, stream_from: int) -> None:
    """At any moment the meter has no cent too many; in the end it has exactly the ledger's."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    book, meter = (Mortal(port, rng, 0.15) for port in (rig.pushes, rig.meter(stream_from)))
    pusher = UsagePusher(book, meter, rig.clock)  # type: ignore[arg-type]
    used = dict.fromkeys(TENANTS, 0)
    rig.fake.faults.at_random(0.5, rng.randrange(2**32))
    for _ in range(40):
        tenant, amount = rng.choice(TENANTS), rng.randrange(1, 4 * CENT)
        used[tenant] += amount
        await rig.use(tenant, amount, NOVEMBER)
        with contextlib.suppress(Died, UnavailableError):
            await pusher.look()
        assert rig.counted() <= sum(total // CENT for total in used.values())
        rig.clock.advance(timedelta(hours=rng.choice((0.1, 1, 5, 30))))
    rig.fake.faults.clear()
    book.share = meter.share = 0
    for _ in range(4):
        await pusher.look()
        rig.clock.advance(timedelta(hours=25))
    assert rig.counted() == sum(total // CENT for total in used.values())
    for tenant, total in used.items():
        assert await rig.pushes.taken_cents(tenant, NOVEMBER) == total // CENT
