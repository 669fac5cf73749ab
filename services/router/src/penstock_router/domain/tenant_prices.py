"""What models cost a tenant whose plan has prices of its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.plans import TenantPrices


def at_prices(
    models: Iterable[ModelRecord], prices: TenantPrices | None, now: datetime
) -> tuple[ModelRecord, ...]:
    """The models at the prices that hold for the tenant on the UTC day of `now`."""
    own = prices.on(now.astimezone(UTC).date()) if prices is not None else {}
    return tuple(
        model.model_copy(update={"price": own[model.name]}) if model.name in own else model
        for model in models
    )
